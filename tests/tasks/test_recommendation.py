"""Recommendations: what is listed and in which order, who gets the popular items, and what each model must be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from datasets import Dataset

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.metrics.ranking_metrics import top_k
from llmft.models.factor_models import BPR, IALS, BPRConfig, IALSConfig, SVDPlusPlus, SVDPlusPlusConfig
from llmft.models.sequence_models import GRU4Rec, GRU4RecConfig, SASRec, SASRecConfig
from llmft.predictions.inputs import Inputs, Row
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Failure, UserError
from llmft.schema.serving import ServeConfig
from llmft.schema.tasks import IGNORED
from llmft.serving.bodies import Reader
from llmft.serving.http import Refused
from llmft.tasks.recommendation.recommendation import Known, Recommendation
from llmft.training import epochs
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]


def task_of(*words: str) -> Recommendation:
    """Two users and four items: u had a, b, c; v had b. Counts are 1, 2, 1, 0."""
    config = compose("finetune", ["+recipe=recsys_bpr", *words])
    history = numpy.array([1, 2, 3, 2], dtype=numpy.int64)
    offsets = numpy.array([0, 3, 4])
    state = Known(["u", "v"], ["a", "b", "c", "d"], offsets, history, numpy.array([], dtype=numpy.float32))
    return tasks.build(config.task).with_state(state)


class Scores(torch.nn.Module):
    """Gives every row the same scores."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, user: torch.Tensor, history: torch.Tensor) -> Any:
        return type("Output", (), {"logits": self.scores.repeat(len(user), 1), "loss": None})


def answers(task: Recommendation, scores: list[float], **rows: list[Any]) -> list[Any]:
    task = task.for_inference()
    features = task.encode(rows)
    some = [dict(zip(features, values, strict=True)) for values in zip(*features.values(), strict=True)]
    outputs, _ = task.objective.predict(Scores(scores), task.objective.collate(some))
    listed = task.decode(list(zip(outputs, features["aside"], strict=True)), features["row"])
    # An exported program gives all scores, and the answers are the same.
    alone = task.decode(
        [(numpy.array(scores, dtype=numpy.float32), aside) for aside in features["aside"]], features["row"]
    )
    assert alone == listed
    return listed


def test_the_history_is_not_listed_and_ties_go_to_the_popular() -> None:
    task = task_of()
    assert answers(task, [1, 1, 2, 1], user=["v"])[0]["answer"] == ["c", "a", "d"]  # b is v's; a was had once, d never
    assert answers(task, [1, 1, 1, 1], user=["v"], items=[["d"]])[0]["answer"] == ["b", "a", "c"]
    assert answers(task, [1, 2, 3, 4], user=["u"])[0] == {"answer": ["d"], "scores": [4.0]}
    assert answers(task_of("task.repeat=true"), [1, 2, 3, 4], user=["u"])[0]["answer"] == ["d", "c", "b", "a"]
    assert answers(task_of("task.top_k=1"), [1, 1, 1, 1], items=[["d"]])[0]["answer"] == ["b"]


def test_who_has_no_history_gets_the_most_popular_items() -> None:
    for rows in ({"user": ["nobody"]}, {"items": [[]]}, {"items": [["unknown"]]}):
        assert answers(task_of(), [9, 8, 7, 6], **rows) == [
            {"answer": ["b", "a", "c", "d"], "scores": [2.0, 1.0, 1.0, 0.0], "by": "popularity"}
        ]


def test_ids_of_json_may_be_numbers() -> None:
    inputs = Inputs(task_of().for_inference(), DatasetConfig(format="json"))
    rows = [Row("1", {"user": 7, "items": [3, "b"]}), Row("2", {"user": "7", "items": "b"})]
    table = inputs.checked(rows)
    assert table["user"] == ["7", "7"]
    assert table["items"] == [["3", "b"], ["b"]]
    with pytest.raises(UserError, match="not a text"):
        inputs.checked([Row("1", {"user": True})])
    reader = Reader(inputs.task, inputs.dataset, ServeConfig())
    assert reader.rows({"rows": [{"user": 7, "items": [3]}]})[0].values == {"user": 7, "items": [3]}
    with pytest.raises(Refused):
        reader.rows({"rows": [{"user": 1.5}]})


def test_lists_of_torch_are_those_of_numpy() -> None:
    """With ties at every border, for every k."""
    rng = numpy.random.default_rng(0)
    items = 30
    history = rng.integers(1, items + 1, 200)
    state = Known(["u"], [f"{n:02}" for n in range(items)], numpy.array([0, 200]), history, numpy.array([]))
    scores = torch.from_numpy(rng.integers(0, 4, (20, items)).astype(numpy.float32))
    for k in (1, 3, 7, 30):
        task = task_of(f"task.top_k={k}", f"task.ks=[{k}]").with_state(state)
        batch = {"history": torch.ones(20, 1, dtype=torch.long)}
        found = numpy.stack(task.objective._lists(scores, batch))
        ids, values = top_k(scores.numpy(), k, state.counts)
        assert (found[:, 0] == ids).all() and (found[:, 1] == values).all()


def test_scores_that_are_nan_stop() -> None:
    with pytest.raises(Failure, match="score that is NaN"):
        answers(task_of(), [1, 0, 0, float("nan")], user=["v"])


def test_windows_teach_every_item_once(here: Path) -> None:
    config = compose("finetune", ["+recipe=recsys_sasrec", "task.max_length=3"])
    task = tasks.build(config.task)
    data = load(config.dataset, task)
    task = task.fit(data["train"], config.model)
    features = encode(task, data["train"])
    pairs = task.objective.gather(features.table)
    own = [
        (user, item)
        for user, items in zip(data["train"]["user"], data["train"]["items"], strict=True)
        for item in items
    ]
    found = [
        (task.state.users[u - 1], task.state.items[i - 1]) for u, i in zip(pairs["user"], pairs["item"], strict=True)
    ]
    assert found == own
    labels = [n for f in features.__getitems__(list(range(len(features)))) for n in f["window"][1:]]
    assert len(labels) == len(own) - len(data["train"])  # the first item of a user is predicted by nothing
    assert max(len(f["window"]) for f in features.__getitems__(list(range(len(features))))) == 4


@pytest.mark.parametrize(("kind", "config"), [(SASRec, SASRecConfig), (GRU4Rec, GRU4RecConfig)])
def test_padding_changes_nothing_and_is_finite(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    model = kind(config(num_items=9, max_position_embeddings=8, hidden_size=8, initializer_range=0.5)).eval()
    short = model(history=torch.tensor([[3, 1, 4]])).logits
    long = model(history=torch.tensor([[0, 0, 3, 1, 4], [0, 0, 0, 0, 0]])).logits
    assert torch.allclose(short[0], long[0], atol=1e-6)
    assert torch.isfinite(long).all()
    assert not model.items.weight[0].any()
    labels = torch.full((1, 3), IGNORED)
    model.train()
    assert model(history=torch.tensor([[3, 1, 4]]), labels=labels).loss.item() == 0.0  # no positive in the batch


def test_a_drawn_item_that_is_right_does_not_count_as_wrong() -> None:
    torch.manual_seed(0)
    model = SASRec(SASRecConfig(num_items=3, hidden_size=4, full_softmax=1, negatives=2)).eval()
    model.config.num_items, model.config.negatives = 3, 2
    states, target = torch.randn(1, 4), torch.tensor([2])
    found = []
    for seed in range(20):
        torch.manual_seed(seed)
        others = torch.randint(1, 4, (2,))
        torch.manual_seed(seed)
        right = (states @ model.items.weight[2]).exp()
        wrong = sum((states @ model.items.weight[o]).exp() * 3 / 2 for o in others if o != 2)
        expected = -torch.log(right / (right + wrong))
        found.append(torch.allclose(model.loss_of(states, target), expected[0], atol=1e-6))
    assert all(found)


def test_ials_is_the_least_squares_solution() -> None:
    pairs = {"user": torch.tensor([1, 1, 2, 3, 3]), "item": torch.tensor([1, 2, 2, 3, 4])}
    model = IALS(IALSConfig(num_users=3, num_items=4, factors=2, alpha=4.0, l2=0.5, iterations=200))
    model.fit(pairs, None, None, 0, 1)
    x, y = model.users.weight[1:].detach().numpy(), model.items.weight[1:].detach().numpy()
    for user, items in enumerate(([0, 1], [1], [2, 3])):
        own = y[items]
        left = y.T @ y + 3.0 * own.T @ own + 0.5 * numpy.eye(2)
        assert numpy.allclose(x[user], numpy.linalg.solve(left, 4.0 * own.sum(axis=0)), atol=1e-4)
    # Somebody new with the same history is answered alike.
    known, new = (model(torch.tensor([user]), torch.tensor([[1, 2]])).logits for user in (1, 0))
    assert torch.allclose(known, new, atol=1e-3)


def test_bpr_draws_what_users_did_not_have_and_decays_nothing_else() -> None:
    model = BPR(BPRConfig(num_users=4, num_items=6, factors=3, l2=0.1))
    model.start({"user": torch.tensor([1, 1, 1, 1, 2]), "item": torch.tensor([1, 2, 3, 4, 6])})
    drawn = model.negatives(torch.tensor([1] * 200), numpy.random.default_rng(0))
    assert set(drawn.tolist()) == {5, 6}
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    adam = epochs.Adam(model, 0.1)
    for _ in range(3):
        adam.step(model.step_loss((torch.tensor([1]), torch.tensor([2]), torch.tensor([5])), adam.sparse))
    for name, rows in (("users.weight", [0, 2, 3, 4]), ("items.weight", [0, 1, 3, 4, 6])):
        assert torch.equal(dict(model.named_parameters())[name][rows], before[name][rows])
    assert not torch.equal(model.users.weight[1], before["users.weight"][1])


def test_svdpp_finishes_with_the_sums_of_training() -> None:
    model = SVDPlusPlus(SVDPlusPlusConfig(num_users=2, num_items=3, factors=2)).eval()
    model.start(
        {"user": torch.tensor([1, 1, 2]), "item": torch.tensor([1, 2, 3]), "rating": torch.tensor([5.0, 3.0, 1.0])}
    )
    model.finish()
    expected = (model.implicit.weight[1] + model.implicit.weight[2]) / 2**0.5
    assert torch.allclose(model.sums[1], expected)
    found = model(torch.tensor([1, 0]), torch.tensor([[1, 0], [1, 0]])).logits
    own = 3.0 + model.items.weight[1] @ (model.users.weight[1] + expected)
    assert torch.allclose(found, torch.stack([torch.stack([own, torch.tensor(3.0)]), torch.tensor([3.0, 3.0])]))


MODELS = {
    "recsys_popularity": ((), "ndcg@10", 0.09),
    "item neighbors": (("+recipe=recsys_popularity", "model=item_neighbors"), "ndcg@10", 0.6),
    "user neighbors": (("+recipe=recsys_popularity", "model=user_neighbors"), "ndcg@10", 0.45),
    "ials": (
        ("+recipe=recsys_popularity", "model=ials", "model.config.l2=1", "model.config.factors=16"),
        "ndcg@10",
        0.45,
    ),
    "recsys_bpr": (("trainer.epochs=25",), "ndcg@10", 0.4),
    "recsys_svdpp": (("trainer.epochs=10", "optimizer.lr=5.0e-3"), "rmse", 0.75),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_the_books_and_is_read_again(name: str, here: Path, llmft: Run) -> None:
    words, metric, bar = MODELS[name]
    words = words if words[:1] and words[0].startswith("+") else (f"+recipe={name}", *words)
    code, out, err = llmft("finetune", *words, "run.dir=run")
    assert code == 0, err
    metrics = json.loads((here / "run/metrics.json").read_text())
    assert metrics["test"][metric] <= bar if metric == "rmse" else metrics["test"][metric] >= bar
    assert llmft("eval", "run", "run.dir=again")[0] == 0
    assert json.loads((here / "again/metrics.json").read_text())["test"] == metrics["test"]
    row = '{"user": "r001", "items": ["b001", "b002"]}'
    code, out, _ = llmft("predict", "run", f"predict.row={row}")
    answer = json.loads(out)["answer"]
    assert code == 0 and len(answer) == (2 if metric == "rmse" else 10) and "b001" not in answer


@pytest.mark.parametrize("sparse", [False, True])
def test_a_run_that_is_stopped_and_resumed_is_the_same_run(
    sparse: bool, here: Path, llmft: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sparse:
        monkeypatch.setattr(epochs, "SPARSE", 10)
    words = ("finetune", "+recipe=recsys_bpr", "trainer.epochs=8")
    assert llmft(*words, "run.dir=whole")[0] == 0

    class Stops(epochs.StopRequests):
        asked = 0

        @property
        def received(self) -> str | None:
            Stops.asked += 1
            return "SIGTERM" if Stops.asked >= 5 else None

    with monkeypatch.context() as patch:
        patch.setattr(epochs, "StopRequests", Stops)
        code, _, err = llmft(*words, "run.dir=parts")
        assert code == 75, err
    assert llmft(*words, "run.dir=parts", "resume=true")[0] == 0
    for file in ("model/model.safetensors", "predictions/test.jsonl"):
        assert (here / "whole" / file).read_bytes() == (here / "parts" / file).read_bytes(), file
    lines = [(here / run / "events.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    one, other = ([json.loads(line) | {"time": 0} for line in own] for own in lines)
    assert one == other


def test_hits_are_grouped_by_popularity_and_by_history() -> None:
    rows = {"user": ["u", "v"], "items": [["a", "b", "c"], ["b"]], "relevant": [["d"], ["a", "c"]]}
    found = task_of().score([{"answer": ["d"]}, {"answer": ["a", "d"]}], Dataset.from_dict(rows))["groups"]
    popular, long = found.values()
    assert popular == [{"name": "0", "count": 1, "share": 1.0}, {"name": "1", "count": 2, "share": 0.5}]
    assert long == [{"name": "1", "count": 1, "share": 1.0}, {"name": "3", "count": 1, "share": 1.0}]


REFUSED = {
    "a key that it does not read": (("trainer.accumulation=2",), "trainer.accumulation"),
    "a scale upside down": (("task.scale=[5,1]",), "scale must have the lower rating first"),
    "a k twice": (("task.ks=[10,10]",), "ks must be different numbers"),
    "a metric of another task": (("trainer.metric_for_best=accuracy",), "accuracy is not a metric of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, here: Path, llmft: Run) -> None:
    words, expected = REFUSED[case]
    code, _, err = llmft("finetune", "+recipe=recsys_bpr", *words, "run.dir=run")
    assert code == 2 and expected in err
