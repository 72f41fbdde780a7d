"""Several labels and numbers from a file to answers, by the command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.config.load import load as compose
from llmft.schema.problem import UserError

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions/test.jsonl").read_text().splitlines()]


@pytest.fixture
def topics(write: Write) -> str:
    cells = ("sport", "money", "money;sport", "")
    write("topics.csv", "text,label\n" + "".join(f"text {i} {cells[i % 4]},{cells[i % 4]}\n" for i in range(80)))
    return "dataset.train=topics.csv"


def test_several_labels_from_a_file(llmft: Run, topics: str, here: Path) -> None:
    words = (
        "+recipe=bert_textcls",
        "smoke=true",
        "dataset=csv",
        topics,
        "task.problem=multi_label",
        "task.separator=;",
    )
    tuned = ("task.threshold=f1", "task.calibrate=true", "task.loss=focal", "task.class_weights=balanced")
    code, out, err = llmft("finetune", *words, *tuned, "dataset.streaming=false", "run.dir=run")
    assert code == 0, err
    assert "any of 2 labels: money, sport" in out
    assert "train: rows by label: " in out
    rows = answers(here / "run")
    assert {tuple(row["label"]) for row in rows} <= {("sport",), ("money",), ("money", "sport"), ()}
    kept = json.loads((here / "run/model/task.json").read_text())["target"]
    assert kept["thresholds"] != [0.5, 0.5]
    assert (
        "  thresholds "
        + ", ".join(f"{name} {cut:.4f}" for name, cut in zip(kept["labels"], kept["thresholds"], strict=True))
        in out
    )
    for row in rows:
        limits = zip(kept["labels"], kept["thresholds"], strict=True)
        assert row["answer"] == [name for name, limit in limits if row["scores"][name] >= limit]
    metrics = json.loads((here / "run/metrics.json").read_text())
    assert {"ece", "f1_samples", "per_class"} <= set(metrics["test"])
    page = (here / "run/report.html").read_text()
    assert "Reliability on test" in page
    assert ("ece_uncalibrated" in metrics["test"]) == (kept["temperature"] != 1.0)
    assert llmft("eval", "run", "run.dir=again")[0] == 0
    assert json.loads((here / "again/metrics.json").read_text())["test"] == metrics["test"]


@pytest.mark.slow  # 25 s
def test_two_processes_learn_the_same_thresholds(llmft: Run, topics: str, here: Path) -> None:
    """As one that takes batches of twice the size: the loss of a step is the same."""
    words = (
        "+recipe=bert_textcls",
        "smoke=true",
        "dataset=csv",
        topics,
        "task.problem=multi_label",
        "task.separator=;",
    )
    same = ("task.threshold=f1", "task.class_weights={sport: 3}", "hardware.precision=fp32", "trainer.max_steps=3")
    still = ("model.config.hidden_dropout_prob=0", "model.config.attention_probs_dropout_prob=0")
    for name, layout in (("one", ["trainer.batch_size=8"]), ("two", ["trainer.batch_size=4", "hardware.processes=2"])):
        code, _, err = llmft("finetune", *words, *same, *still, *layout, f"run.dir={name}")
        assert code == 0, err
    one, two = (json.loads((here / name / "model/task.json").read_text())["target"] for name in ("one", "two"))
    assert two["thresholds"] == pytest.approx(one["thresholds"], abs=1e-4)
    first, second = (json.loads((here / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert second["train"]["loss"] == pytest.approx(first["train"]["loss"], abs=1e-4)


def test_numbers_from_a_stream_of_a_file(llmft: Run, write: Write, here: Path) -> None:
    rows = "".join(f"{i % 9},{'ab'[i % 2]},{1000 + 50 * (i % 9)}\n" for i in range(120))
    write("houses.csv", "rooms,street,price\n" + rows)
    write("test.csv", "rooms,street,price\n10,a,1500.5\n11,b,1550\n12,b,900\n")
    words = ("+recipe=tabular_regression", "smoke=true", "dataset=csv", "dataset.train=houses.csv")
    split = ("dataset.validation=test.csv", "dataset.split.test=0", "dataset.columns.label=price", "task.loss=mae")
    code, out, err = llmft("finetune", *words, *split, "dataset.streaming=true", "dataset.max_rows=null", "run.dir=run")
    assert code == 0, err
    assert "tabular, a number" in out
    rows = [json.loads(line) for line in (here / "run/predictions/validation.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == [1500.5, 1550.0, 900.0]
    assert all(isinstance(row["answer"], float) and "scores" not in row for row in rows)
    page = (here / "run/report.html").read_text()
    assert "Answers on validation" in page
    assert "Largest error first." in page


def test_a_thousand_labels_stay_readable(llmft: Run, write: Write, here: Path) -> None:
    write("a.csv", "text,label\n" + "".join(f"row {i} of many,label {i % 150:03}\n" for i in range(600)))
    words = ("+recipe=bert_textcls", "smoke=true", "dataset=csv", "dataset.train=a.csv", "dataset.max_rows=600")
    code, out, err = llmft("finetune", *words, "trainer.max_steps=1", "run.dir=run")
    assert code == 0, err
    assert "150 labels: label 000" in out
    assert all(len(row["scores"]) == 100 and row["answer"] in row["scores"] for row in answers(here / "run"))
    confusion = json.loads((here / "run/metrics.json").read_text())["test"]["confusion"]
    assert (len(confusion["labels"]), confusion["of"]) == (20, 150)
    page, card = (here / "run/report.html").read_text(), (here / "run/README.md").read_text()
    assert page.count('<th style="text-align:center">') <= 40
    assert "with the lowest F1" in page
    assert "with the lowest F1" in card
    assert len(page) < 300_000


RULES = [
    (["task.loss=mse"], "task.loss  mse is not a loss of single_label (command line). Write task.loss=cross_entropy or focal."),
    (["task.loss=focal", "task.label_smoothing=0.1"], "task.label_smoothing  is only for cross_entropy, and task.loss is focal"),
    (["task.problem=regression", "task.calibrate=true"], "task.calibrate  is only for labels, and task.problem is regression (command line). Leave it out."),
    (["task.problem=regression", "trainer.metric_for_best=f1"], "f1 is not a metric of regression (command line). They are loss, mse,"),
    (["task.problem=multi_label", "trainer.metric_for_best=accuracy"], "accuracy is not a metric of multi_label"),
    (["task.threshold=f1", "dataset=csv", "dataset.train=a.csv", "dataset.split.validation=0"], "task.threshold  needs validation rows, and there are none"),
    (["task.threshold=1"], "task.threshold  must be below 1 or one of 'f1', 'accuracy' or 'matthews', got 1"),
    (["task.class_weights={a: x}"], "task.class_weights.a  must be a number, got 'x' (command line)"),
    (["task.class_weights={a: 0}"], "task.class_weights.a  must be above 0, got 0 (command line)"),
    (["task.class_weights=many"], "task.class_weights  must be 'balanced' or {KEY: VALUE, ...}, got 'many' (command line)"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "text"), RULES)
def test_what_does_not_go_together_is_said(words: list[str], text: str) -> None:
    with pytest.raises(UserError) as error:
        compose("finetune", ["+recipe=bert_textcls", *words])
    assert text in str(error.value)


@pytest.mark.parametrize(("task", "problem", "metric"), [
    ("text_classification", "single_label", "accuracy"),
    ("text_classification", "multi_label", "f1_micro"),
    ("text_classification", "regression", "pearson"),
    ("tabular", "regression", "r2"),
])  # fmt: skip
def test_the_metric_that_picks_the_best_is_of_the_problem(task: str, problem: str, metric: str) -> None:
    config = compose("finetune", [f"task={task}", f"task.problem={problem}"])
    assert config.task.metric == metric
    assert metric in config.task.metrics
