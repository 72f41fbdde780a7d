"""What holds for every task, a row of cases.py each."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import Data, load
from llmft.models.build import build
from llmft.models.generate import set_generation
from llmft.models.trained import load_trained
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.tasks import task_types
from llmft.tasks.measurements import Meter, of_answers
from llmft.tasks.targets.problems import TargetTask
from llmft.tasks.task import Task
from llmft.training.evaluation import Experiment, Split, evaluate, float32
from llmft.training.features import encode
from llmft.training.frozen import with_reference
from llmft.training.hardware import Hardware
from llmft.training.reference import measure
from tests.tasks.cases import CASES

Run = Callable[..., tuple[int, str, str]]


def prepared(name: str, *words: str) -> tuple[Config, Task[Any], Data, Any, Any]:
    """The tiny model of a task, with synthetic rows."""
    config = compose(CASES[name].command, [f"+recipe={CASES[name].recipe}", "smoke=true", *CASES[name].words, *words])
    task = tasks.build(config.task)
    data = load(config.dataset, task)
    task = task.fit(data["train"], config.model)
    transformers.set_seed(0)
    return config, task, data, build(config.model, task.head, task.model_kwargs())


def alike(one: Any, other: Any) -> bool:
    """Whether two answers are the same except for the last digits of their numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == pytest.approx(other, abs=1e-5) if isinstance(one, float) else one == other)


def test_every_task_has_a_case() -> None:
    assert {name.partition(" ")[0] for name in CASES} == set(task_types())


@pytest.mark.parametrize("name", CASES)
def test_a_task_says_what_it_must(name: str) -> None:
    config, task, data, _ = prepared(name)
    assert config.task.name == name.partition(" ")[0]
    assert config.task.metric in METRICS
    for rows in data.splits.values():
        assert {role for role, spec in task.columns.items() if spec.required} <= set(rows.column_names)
        assert task.check(rows, "any") == []
        assert all(task.format_input(row) for row in rows)
    assert task.synthetic_rows(5, seed=1) == task.synthetic_rows(5, seed=1) != task.synthetic_rows(5, seed=2)


@pytest.mark.parametrize("name", CASES)
def test_features_keep_their_rows_and_need_no_label(name: str) -> None:
    config, task, data, model = prepared(name)
    set_generation(model, config.generation)
    rows = data["train"]
    features = encode(task, rows)
    assert sorted(set(features.rows)) == list(range(len(rows)))
    targets = [role for role, spec in task.columns.items() if not spec.is_input and role in rows.column_names]
    unlabeled = rows.remove_columns(targets)
    task = task.for_inference()
    batch = task.objective.collate(encode(task, unlabeled).__getitems__(list(range(4))))
    with float32(model):
        outputs, loss = task.objective.predict(model, batch)
    assert loss is None
    assert len(outputs) == 4


@pytest.mark.parametrize("name", CASES)
def test_state_comes_back_as_it_was_saved(name: str, here: Path) -> None:
    config, task, data, _ = prepared(name)
    folder = here / "model"
    folder.mkdir()
    task.save(folder)
    again = tasks.build(config.task).load(folder)
    assert again.model_kwargs() == task.model_kwargs()
    rows = data["test"][:]
    assert again.encode(rows) == task.encode(rows)


@pytest.mark.parametrize("name", CASES)
def test_an_answer_does_not_depend_on_its_batch(name: str) -> None:
    _, task, data, model = prepared(name)
    split = Split(data["test"], encode(task, data["test"]))
    together, alone = (evaluate(task, model, split, size)[1] for size in (16, 1))
    for one, other in zip(together.answers, alone.answers, strict=True):
        assert alike(one, other)
        if isinstance(task, TargetTask) and isinstance(one["answer"], str):
            assert sum(one["scores"].values()) == pytest.approx(1)

    # What a service watches: something of every input, and of every answer that there is.
    measured = measure(Meter(task, None), split, together.answers)
    answered = of_answers(together.answers).keys()
    assert answered or all(answer["answer"] is None for answer in together.answers)
    assert measured.keys() > answered
    assert {len(values) for values in measured.values()} == {16}
    assert {type(value) for values in measured.values() for value in values} <= {int, float, str, type(None)}


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_give_the_pinned_losses(name: str) -> None:
    config, task, data, model = prepared(name, "dataset.max_rows=80")
    splits = {"train": Split(data["train"], encode(task, data["train"]))}
    experiment = Experiment(config)
    experiment.hardware, experiment.task, experiment.model = Hardware("cpu", "fp32", ""), task, model
    features = with_reference(experiment, splits)["train"].features
    collate = task.objective.collate
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    model.train()
    for step in range(10):
        loss = task.objective.loss(model, collate(features.__getitems__(list(range(8 * step, 8 * step + 8)))))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 4))
    assert losses == pytest.approx(CASES[name].losses, abs=2e-4)


LONG = (
    *("masked_lm whole words", "masked_lm next sentence", "question_answering unanswerable"),
    *("text_classification multi_label", "text_classification regression", "tabular multi_label"),
)
"""Cases of 10 to 20 s whose task has a shorter one; their first ten losses are pinned all the same."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in CASES])
def test_a_tiny_model_learns_what_chance_cannot(name: str, llmft: Run, here: Path) -> None:
    case = CASES[name]
    words = [
        f"trainer.max_steps={case.steps}",
        "trainer.batch_size=16",
        "dataset.max_rows=256",
        f"optimizer.lr={case.lr}",
        "run.dir=run",
    ]
    code, _, err = llmft(case.command, f"+recipe={case.recipe}", "smoke=true", *case.words, *words)
    assert code == 0, err
    metrics = json.loads((here / "run/metrics.json").read_text())
    score = metrics["test"][case.metric]
    assert (score >= case.good > case.chance) if case.better else (score <= case.good < case.chance)

    # `eval` gives the numbers that training gave, and the saved model is the one that gave them.
    assert llmft("eval", "run", "run.dir=again")[0] == 0
    again = json.loads((here / "again/metrics.json").read_text())
    assert again == {split: metrics[split] for split in ("validation", "test")}
    for split in ("validation", "test"):
        first, second = (here / f"{folder}/predictions/{split}.jsonl" for folder in ("run", "again"))
        assert first.read_text() == second.read_text()

    loads_in_transformers_alone(name, here / "run")

    # What each row adds makes the score again; by it runs are compared, and these two are one.
    task = prepared(name)[1]
    scored = [json.loads(line) for line in (here / "run/predictions/test.jsonl").read_text().splitlines()]
    parts = [task.row_score(row, row["label"]) for row in scored]
    (metric,) = {part.metric for part in parts}
    total = sum(part.part for part in parts) / sum(part.whole for part in parts)
    if metric != "chrf":  # of a corpus it is no mean over its sentences
        assert total == pytest.approx(metrics["test"][metric], abs=1e-6)
    code, out, err = llmft("runs", "compare", "run", "again")
    assert code == 0, err
    assert "no difference that these rows can show" in out

    if case.asked:
        return

    # `predict` gives the answers again, for the test rows as a file.
    columns = task.synthetic_rows(16, seed=2)
    with (here / "rows.jsonl").open("w") as file:
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            # In JSON a text is a text; a list of messages stands there as itself.
            row |= {key: json.loads(row[key]) for key in row if task.columns[key].structure}
            file.write(
                json.dumps(row | row.pop("features", {}), default=lambda data: base64.b64encode(data).decode()) + "\n"
            )
    code, out, err = llmft("predict", "run", "predict.input=rows.jsonl")
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer.pop("id") for answer in answers] == [f"rows.jsonl:{number}" for number in range(1, 17)]
    assert answers == [{key: row[key] for key in row if key not in ("id", "input", "label")} for row in scored]


def loads_in_transformers_alone(name: str, run: Path) -> None:
    config, task, data, _ = prepared(name)
    model, _ = load_trained(run, task, "cpu")
    plain = getattr(transformers, task.head).from_pretrained(run / "model")
    batch = task.objective.collate(encode(task, data["test"]).__getitems__([0, 1]))
    if task.objective.mean_over == "boxes":  # of which a model takes a list of dictionaries
        batch = {"pixel_values": batch["pixel_values"]}
    batch = {key: value for key, value in batch.items() if key not in task.objective.own_keys}
    outputs = zip(plain(**batch).to_tuple(), model(**batch).to_tuple(), strict=True)
    assert all(torch.equal(one, other) for one, other in outputs if isinstance(one, torch.Tensor))
    assert list(plain.config.label2id) == list(model.config.label2id)
    assert config.model.architecture == plain.config.model_type


@pytest.mark.parametrize("name", LONG)
def test_a_run_can_be_loaded_by_transformers_alone(name: str, llmft: Run, here: Path) -> None:
    """As those of the other cases, where they have learned."""
    case = CASES[name]
    assert llmft(case.command, f"+recipe={case.recipe}", "smoke=true", *case.words, "run.dir=run")[0] == 0
    loads_in_transformers_alone(name, here / "run")
