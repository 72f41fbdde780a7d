"""Boosting: the trees of scikit-learn as tensors, fitted in the place of training."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from transformers import AutoModelForSequenceClassification

from llmft.config.load import load as compose
from llmft.config.precedence import Origin
from llmft.config.rules import of_models as rules
from llmft.exports.programs import Named, write
from llmft.models import boosting
from llmft.models.boosting import BoostingConfig, BoostingForClassification
from llmft.models.build import build
from llmft.models.trained import session
from llmft.schema.inference import ExportConfig
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Failure, UserError

Run = Callable[..., tuple[int, str, str]]
Batch = dict[str, torch.Tensor]

ROWS = 300
OPTIONS: dict[str, Any] = {
    "max_iter": 12,
    "max_leaf_nodes": 6,
    "min_samples_leaf": 3,
    "max_features": 0.7,
    "l2_regularization": 5.0,
}


def table(seed: int, rows: int = ROWS) -> Batch:
    """Two numbers, one of them sometimes missing, and two categories: of five values, and of two."""
    rng = numpy.random.default_rng(seed)
    missing = numpy.stack([rng.random(rows) < 0.2, numpy.zeros(rows)], axis=1)
    numbers = numpy.where(missing, 0.0, rng.normal(size=(rows, 2)))
    categories = numpy.stack([rng.integers(0, 6, rows), rng.integers(0, 3, rows)], axis=1)
    return {
        "numbers": torch.tensor(numbers).float(),
        "missing": torch.tensor(missing.astype(float)).float(),
        "categories": torch.tensor(categories),
    }


def score(batch: Batch, noise: int = 0) -> torch.Tensor:
    """What depends on all columns, and on whether there is a number."""
    of_code = torch.tensor([0.5, 2.0, -2.0, 1.0, -1.0, 0.0])
    found = batch["numbers"].sum(dim=1) + 2 * batch["missing"][:, 0] + of_code[batch["categories"][:, 0]]
    found += (batch["categories"][:, 1] == 1).float()
    return found + 0.5 * torch.randn(len(found), generator=torch.Generator().manual_seed(noise))


def labels(problem: str, batch: Batch, noise: int = 0) -> torch.Tensor:
    found = score(batch, noise)
    if problem == "regression":
        return found
    if problem == "multi_label_classification":
        return torch.stack([found > 0, found > 1.5, batch["numbers"][:, 1] > 0], dim=1).float()
    return (found > 0).long() + (found > 2).long() if problem == "three" else (found > 0).long()


def model(problem: str, **options: Any) -> BoostingForClassification:
    count = {"three": 3, "multi_label_classification": 3, "regression": 1}.get(problem, 2)
    kind = "single_label_classification" if problem in ("two", "three") else problem
    sizes = {"num_numbers": 2, "category_sizes": [5, 2]}
    config = BoostingConfig(**{**sizes, **OPTIONS, **options}, num_labels=count, problem_type=kind)
    return BoostingForClassification(config).eval()


def theirs(batch: Batch) -> numpy.ndarray:
    """The same rows as one would give them to scikit-learn by hand, numbers first."""
    numbers = numpy.where(batch["missing"] > 0, numpy.nan, batch["numbers"])
    codes = batch["categories"].double().numpy()
    return numpy.hstack([numpy.where(codes == 0, numpy.nan, codes), numbers])


PROBLEMS = ("two", "three", "multi_label_classification", "regression")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_it_answers_as_scikit_learn_does_and_comes_back_to_the_bit(problem: str, here: Path) -> None:
    rows, new = table(1), table(2)
    target = labels(problem, rows)
    made = model(problem)
    facts = made.fit({**rows, "labels": target}, None, None, seed=3, threads=1)
    assert facts["rounds"] == 12
    options = {**OPTIONS, "learning_rate": 0.05, "random_state": 3}
    options |= {"categorical_features": [0, 1], "early_stopping": False}
    logits = made(**new).logits
    if problem == "regression":
        expected = HistGradientBoostingRegressor(**options).fit(theirs(rows), target).predict(theirs(new))
        assert logits[:, 0].numpy() == pytest.approx(expected, abs=1e-6)
    elif problem == "multi_label_classification":
        for label in range(3):
            one = HistGradientBoostingClassifier(**options).fit(theirs(rows), target[:, label])
            assert logits[:, label].sigmoid().numpy() == pytest.approx(one.predict_proba(theirs(new))[:, 1], abs=1e-6)
    else:
        expected = HistGradientBoostingClassifier(**options).fit(theirs(rows), target).predict_proba(theirs(new))
        assert logits.softmax(dim=1).numpy() == pytest.approx(expected, abs=1e-6)
    made.save_pretrained(here / "saved")
    assert {file.suffix for file in (here / "saved").iterdir()} == {".json", ".safetensors"}
    again = AutoModelForSequenceClassification.from_pretrained(here / "saved", dtype="float32")
    assert torch.equal(again(**new).logits, logits)
    alone = torch.cat([made(**{name: value[row : row + 1] for name, value in new.items()}).logits for row in range(20)])
    assert torch.equal(alone, logits[:20])  # an answer does not depend on its batch


def test_neighbouring_numbers_stay_apart() -> None:
    """A threshold between two neighbours among float32 is not a float32 itself."""
    low = torch.tensor(1.0)
    values = torch.stack([low, torch.nextafter(low, torch.tensor(2.0))]).repeat(50)[:, None]
    rows = {"numbers": values, "missing": torch.zeros_like(values), "categories": torch.zeros(100, 0, dtype=torch.long)}
    target = torch.tensor([0, 1]).repeat(50)
    made = model("two", num_numbers=1, category_sizes=[])
    made.fit({**rows, "labels": target}, None, None, seed=0, threads=1)
    assert torch.equal(made(**rows).logits.argmax(dim=1), target)


def test_the_rarest_of_many_categories_share_a_code() -> None:
    codes = torch.arange(1, 301).repeat(12)[:, None]  # scikit-learn parts no categories of fewer than ten rows
    rows = {"numbers": torch.zeros(3600, 0), "missing": torch.zeros(3600, 0), "categories": codes}
    target = (codes[:, 0] % 2).long()
    made = model("two", num_numbers=0, category_sizes=[300], min_samples_leaf=1, max_features=1.0)
    made.fit({**rows, "labels": target}, None, None, seed=0, threads=1)
    logits = made(**rows).logits
    assert torch.equal(logits[:254].argmax(dim=1), target[:254])
    assert len({tuple(row.tolist()) for row in logits[254:300]}) == 1


def test_a_label_that_no_row_has_is_unlikely_and_a_label_of_all_rows_is_sure() -> None:
    rows = table(1)
    three = model("three")
    three.fit({**rows, "labels": labels("two", rows)}, None, None, seed=0, threads=1)
    shares = three(**rows).logits.softmax(dim=1)
    assert shares[:, 2].max() < 0.01
    three.fit({**rows, "labels": torch.full((ROWS,), 2)}, None, None, seed=0, threads=1)  # nothing to tell apart
    assert three(**rows).logits.softmax(dim=1)[:, 2].numpy() == pytest.approx((ROWS + 1) / (ROWS + 1 + 2 / ROWS))
    several = model("multi_label_classification")
    target = torch.stack([torch.ones(ROWS), torch.zeros(ROWS), (score(rows) > 0).float()], dim=1)
    several.fit({**rows, "labels": target}, None, None, seed=0, threads=1)
    scores = several(**rows).logits.sigmoid()
    assert scores[:, 0].numpy() == pytest.approx(1 - 1 / (ROWS + 2))
    assert scores[:, 1].numpy() == pytest.approx(1 / (ROWS + 2))
    assert several.config.trees["outputs"] == 3


def test_a_row_of_weight_two_counts_as_two_rows() -> None:
    rows = table(1, rows=60) | {"categories": torch.zeros(60, 0, dtype=torch.long)}  # rare ones are left by their count
    target = (rows["numbers"].sum(dim=1) > 0).long()
    twice = torch.arange(60).repeat_interleave(target + 1)
    options = {"category_sizes": [], "min_samples_leaf": 1, "max_features": 1.0}
    weighed, repeated = model("two", **options), model("two", **options)
    weighed.fit({**rows, "labels": target, "weights": target + 1.0}, None, None, seed=0, threads=1)
    again = {name: value[twice] for name, value in rows.items()}
    repeated.fit({**again, "labels": target[twice]}, None, None, seed=0, threads=1)
    assert weighed(**rows).logits.numpy() == pytest.approx(repeated(**rows).logits.numpy(), abs=1e-5)
    several = model("multi_label_classification", **options)
    both = torch.stack([target.float()] * 3, dim=1)
    heavy = torch.stack([target + 1.0, torch.ones(60), torch.ones(60)], dim=1)
    several.fit({**rows, "labels": both, "weights": heavy}, None, None, seed=0, threads=1)
    logits = several(**rows).logits
    assert logits[:, 0].numpy() == pytest.approx((weighed(**rows).logits @ torch.tensor([-1.0, 1.0])).numpy(), abs=1e-5)
    assert torch.equal(logits[:, 1], logits[:, 2])
    assert not torch.equal(logits[:, 0], logits[:, 1])


def test_validation_rows_say_when_to_stop() -> None:
    rows, others = table(1), table(2)
    made = model("two", max_iter=400, learning_rate=0.3, n_iter_no_change=5)
    target = labels("two", others, noise=1)
    facts = made.fit({**rows, "labels": labels("two", rows)}, {**others, "labels": target}, None, 0, 1)
    assert 5 < facts["rounds"] < 400
    # A label of validation rows that no training row has is left out of that.
    three = model("three", max_iter=400, learning_rate=0.3, n_iter_no_change=5)
    facts = three.fit({**rows, "labels": labels("two", rows)}, {**others, "labels": target * 2}, None, 0, 1)
    assert facts["rounds"] > 0


def test_trees_of_another_form_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        boosting.numpy, "unpackbits", lambda bits, **_: numpy.zeros((len(bits), 256), dtype=numpy.uint8)
    )
    rows = table(1)
    with pytest.raises(Failure, match="could not be read: their predictions differ"):
        model("two", max_iter=40).fit({**rows, "labels": labels("two", rows)}, None, None, seed=0, threads=1)


def test_wrong_options_are_named() -> None:
    needed = {"num_labels": 2, "num_numbers": 2, "category_sizes": []}
    for key, value, what in (("max_iter", 0, "max_iter"), ("learningrate", 0.1, "learning_rate")):
        with pytest.raises(UserError, match=what):
            build(
                ModelConfig(architecture="boosting", config={key: value}), "AutoModelForSequenceClassification", needed
            )


def test_an_exported_program_answers_to_the_bit(here: Path) -> None:
    rows = table(1)
    made = model("two", max_iter=3, max_leaf_nodes=4)
    made.fit({**rows, "labels": labels("two", rows)}, None, None, seed=0, threads=1)
    new = table(2, rows=50)
    two = {name: value[:2] for name, value in new.items()}
    task: Any = SimpleNamespace(reads="logits", token_axis=None, target=None)  # what a program asks of it
    facts = write(Named(made, task), [two], None, ExportConfig(format="onnx"), here)
    assert facts["inputs"]["categories"] == {"dtype": "int64", "shape": ["batch", 2]}
    assert torch.equal(session("onnx", here)(new)["logits"], made(**new).logits)


REFUSED = {
    "optimizer.lr=0.1": "optimizer.lr",
    "optimizer=sgd": "optimizer",
    "scheduler.warmup_ratio=0.1": "scheduler.warmup_ratio",
    "trainer.epochs=3": "trainer.epochs",
    "trainer.patience=3": "trainer.patience",
    "model.freeze=encoder": "model.freeze",
    "model.unfreeze=1": "model.unfreeze",
    "model.dropout=0.1": "model.dropout",
    "model.init=orthogonal": "model.init",
    "adapter=lora": "adapter",
    "hardware.processes=2": "hardware.processes",
    "dataset.streaming=true": "dataset.streaming",
    "task.loss=focal": "task.loss",
    "task.label_smoothing=0.1": "task.label_smoothing",
    "task.bins=8": "task.bins",
}


def test_what_belongs_to_gradients_is_refused_by_name() -> None:
    with pytest.raises(UserError) as error:
        compose("finetune", ["+recipe=tabular_boosting", *REFUSED])
    assert {p.key for p in error.value.problems if "boosting" in p.what} == set(REFUSED.values())


def test_thresholds_are_not_rounded() -> None:
    """By `export.precision`, which would move them."""
    config = compose("finetune", ["+recipe=tabular_boosting"])
    asked = config.model_copy(update={"command": "export", "export": ExportConfig(precision="fp16")})
    (problem,) = rules._a_fitted_model_reads_its_keys(asked, Origin(lambda key: "somewhere"))
    assert (problem.key, problem.hint) == ("export.precision", "Write export.precision=fp32.")


def test_what_any_model_reads_is_taken_and_a_recipe_may_say_more() -> None:
    words = ["+recipe=tabular_mlp", "model=boosting", "trainer.eval_batch_size=8", "trainer.metric_for_best=roc_auc"]
    assert compose("finetune", words).model.architecture == "boosting"
    config = compose("finetune", ["+recipe=tabular_ft", "model=boosting"])
    assert (config.model.architecture, config.task.bins) == ("boosting", 48)


def test_a_run_is_fitted_scored_loaded_and_asked(llmft: Run, here: Path) -> None:
    words = ("+recipe=tabular_boosting", "smoke=true", "dataset.max_rows=256", "task.class_weights=balanced")
    code, out, err = llmft("finetune", *words, "task.threshold=f1", "task.calibrate=true", "run.dir=run")
    assert code == 0, err
    assert "at most 20 rounds of trees of 4 leaves" in out
    metrics = json.loads((here / "run/metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= 0.9
    assert metrics["train"]["rounds"] == metrics["train"]["trees"] > 0
    assert not (here / "run/checkpoints").exists()
    assert "rounds" in (here / "run/report.html").read_text()
    assert llmft("eval", "run", "run.dir=again")[0] == 0
    assert json.loads((here / "again/metrics.json").read_text()) == {k: metrics[k] for k in ("validation", "test")}
    code, out, _ = llmft("predict", "run", "predict.row={weight: 3, size: 4, colour: red}")
    assert (code, json.loads(out)["answer"]) == (0, "heavy")
    # Fitting begins anew, also where it was interrupted: a fitted model is nothing to go on from.
    code, _, err = llmft("finetune", "+recipe=tabular_boosting", "model.path=run", "smoke=true", "run.dir=more")
    assert code == 2
    assert "must be empty for a model that is fitted" in err


def test_an_interrupted_run_starts_over(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("finetune", "+recipe=tabular_boosting", "smoke=true", "run.dir=run")
    with monkeypatch.context() as patch:
        patch.setattr(BoostingForClassification, "_store_trees", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert llmft(*words)[0] == 130
    assert json.loads((here / "run/manifest.json").read_text())["status"] == "interrupted"
    assert llmft(*words, "resume=true")[0] == 0
    assert llmft(*words[:-1], "run.dir=other")[0] == 0
    first, second = (json.loads((here / f"{run}/metrics.json").read_text())["test"] for run in ("run", "other"))
    assert first == second
