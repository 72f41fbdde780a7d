"""Which columns matter: those that the labels follow from, and no others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pytest
import torch

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.models.boosting import BoostingConfig, BoostingForClassification
from llmft.training import comparisons as module
from llmft.training.comparisons import importance
from llmft.training.evaluation import Split
from llmft.training.features import encode
from llmft.training.fit import whole

Run = Callable[..., tuple[int, str, str]]


def test_the_columns_that_tell_and_where_they_stand(write: Callable[[str, str], Path]) -> None:
    rng = numpy.random.default_rng(0)
    lines = []
    for row in range(300):
        n, noise, colour, day = rng.integers(100), rng.integers(100), "rgb"[rng.integers(3)], 1 + rng.integers(28)
        when = f"2024-0{1 + row % 9}-{day:02}T1{row % 10}:00:00"
        lines.append(f"{n},{noise},{colour},{when},{'yes' if (n > 50) != (colour == 'r') else 'no'}\n")
    write("t.csv", "n,noise,colour,when,label\n" + "".join(lines))
    config = compose("finetune", ["+recipe=tabular_boosting", "dataset=csv", "dataset.train=t.csv"])
    task = tasks.build(config.task)
    data = load(config.dataset, task)
    task = task.fit(data["train"], config.model)
    assert task.input_positions() == {
        "n": {"numbers": [0], "missing": [0]},
        "noise": {"numbers": [1], "missing": [1]},
        "when": {"numbers": [2, 3, 4, 5, 6, 7, 8], "missing": [2, 3, 4, 5, 6, 7, 8]},
        "colour": {"categories": [0]},
    }
    splits = {name: Split(rows, encode(task, rows)) for name, rows in data.splits.items()}
    model = BoostingForClassification(BoostingConfig(max_iter=60, **task.model_kwargs())).eval()
    model.fit(whole(task, splits["train"].features), None, None, seed=0, threads=1)
    found = importance(task, model, splits["train"], "accuracy", 300)
    assert list(found)[:2] in (["n", "colour"], ["colour", "n"])
    assert min(found["n"], found["colour"]) > 0.2
    assert max(found["noise"], found["when"]) < 0.1
    assert importance(task, model, splits["train"], "accuracy", 300) == found  # drawn with a seed
    assert importance(task, model, splits["train"], "bleu", 300) == {}
    # Where less is better, what is lost is what is added.
    assert importance(task, model, splits["train"], "loss", 300)["n"] > 0


def test_cells_move_together_and_nothing_else_does() -> None:
    table = pyarrow.table({"numbers": [[1.0, 10.0, 5.0], [2.0, 20.0, 6.0], [3.0, 30.0, 7.0]], "labels": [0, 1, 2]})
    moved = module._exchanged(table, {"numbers": [0, 1]}, numpy.array([2, 0, 1]))
    assert moved["numbers"].to_pylist() == [[3.0, 30.0, 5.0], [1.0, 10.0, 6.0], [2.0, 20.0, 7.0]]
    assert moved["labels"] == table["labels"]


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[int] = []

    def counted(task: Any, model: Any, split: Split, size: int) -> tuple[dict[str, float], None]:
        answered.append(len(split))
        return {"accuracy": 0.5}, None

    class Wide:
        def __init__(self, columns: int) -> None:
            self.columns = columns

        def input_positions(self) -> dict[str, dict[str, list[int]]]:
            return {f"c{number}": {} for number in range(self.columns)}

    monkeypatch.setattr(module, "evaluate", counted)
    config = compose("finetune", ["+recipe=tabular_linear", "smoke=true", "dataset.max_rows=3000"])
    task = tasks.build(config.task)
    rows = load(config.dataset, task)["train"]
    split = Split(rows, encode(task.fit(rows, config.model), rows))
    for columns, draws, size in ((1, 5, 1000), (7, 2, 1000), (14, 1, 1000), (100, 1, 150), (300, 1, 50)):
        answered.clear()
        importance(Wide(columns), torch.nn.Linear(1, 1), split, "accuracy", 64)  # type: ignore[arg-type]
        assert answered == [size] * (1 + draws * columns)
    assert importance(Wide(301), torch.nn.Linear(1, 1), split, "accuracy", 64) == {}  # type: ignore[arg-type]


CASES = {
    ("+recipe=tabular_mlp",): True,
    ("+recipe=tabular_mlp", "smoke=true"): False,
    ("+recipe=tabular_mlp", "smoke=true", "task.importance=true"): True,
    ("+recipe=tabular_mlp", "task.importance=false"): False,
    ("+recipe=tabular_mlp", "hardware.processes=2"): False,
    ("+recipe=bert_textcls",): False,
}


@pytest.mark.parametrize("words", CASES)
def test_when_it_is_looked_at(words: tuple[str, ...]) -> None:
    config = compose("finetune", list(words))
    assert module.wants_importance(config, first=True) is CASES[words]
    assert module.wants_importance(config, first=False) is ("task.importance=true" in words)


def test_the_report_shows_it(llmft: Run, here: Path) -> None:
    words = ("+recipe=tabular_boosting", "smoke=true", "dataset.max_rows=200", "task.importance=true", "run.dir=run")
    assert llmft("finetune", *words)[0] == 0
    metrics = json.loads((here / "run/metrics.json").read_text())
    found = metrics["importance"]
    assert (found["split"], found["metric"], set(found["columns"])) == (
        "validation",
        "accuracy",
        {"weight", "size", "colour"},
    )
    assert found["columns"]["weight"] > found["columns"]["size"]
    assert metrics["train"]["importance_seconds"] > 0
    assert "Column importance" in (here / "run/report.html").read_text()
