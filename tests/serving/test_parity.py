"""What is served is what `llmft predict` answers, for every task."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from llmft import api
from llmft.models.generate import set_generation
from llmft.predictions.inputs import Row
from llmft.runs.folder import as_recipe
from llmft.tasks.measurements import Meter
from llmft.tasks.optional import HasExample
from tests.serving.conftest import Client
from tests.tasks.cases import CASES
from tests.tasks.test_every_task import alike, prepared

ROWS = 5


def run_of(name: str, folder: Path) -> Path:
    """A run of the tiny, untrained model of a task."""
    config, task, _, model = prepared(name)
    set_generation(model, config.generation)
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text(as_recipe(config), encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps({"command": config.command, "status": "done"}))
    model.save_pretrained(folder / "model")
    task.save(folder / "model")
    made = task.synthetic_rows(ROWS, seed=3)
    inputs = {role: cells for role, cells in made.items() if role in task.columns and task.columns[role].is_input}
    rows: list[dict[str, Any]] = [dict(zip(inputs, cells, strict=True)) for cells in zip(*inputs.values(), strict=True)]
    rows = [row.pop("features", {}) | row for row in rows]
    if isinstance(task, HasExample) and config.command == "pretrain":  # a place to fill in
        gap = task.example_row()["text"].removeprefix("Some")
        rows = [{"text": " ".join(row["text"].split()[:4]) + gap} for row in rows]
    (folder / "rows.json").write_text(json.dumps([sent(row) for row in rows]))
    return folder


def sent(row: dict[str, Any]) -> dict[str, Any]:
    """A row of cells as a client sends it."""
    found = {}
    for name, cell in row.items():
        if isinstance(cell, dict) and "bytes" in cell:
            cell = base64.b64encode(cell["bytes"]).decode()
        found[name] = cell
    return found


@pytest.mark.parametrize("name", CASES)
def test_served_is_predicted(name: str, here: Path) -> None:
    from llmft.serving.app import create

    run = run_of(name, here / "run")
    rows = json.loads((run / "rows.json").read_text())
    expected = api.load(run).predict(rows)
    assert [answer["error"] for answer in expected if "error" in answer] == []
    app = create(str(run), max_text=10**6)
    app.state.models.load_all()
    found = Client(app).ask("POST", "/predict", json={"rows": rows})
    assert found.status_code == 200, found.text
    assert len(found.json()["answers"]) == ROWS
    assert alike(found.json()["answers"], json.loads(json.dumps(expected)))
    served = app.state.models.get(app.state.models.names()[0])
    served.batcher.close()
    ((_, encoded),), _ = served.read([Row(str(place), row) for place, row in enumerate(rows)])
    measured = Meter(served.task, None).measure(encoded.rows, expected)
    assert {len(values) for values in measured.values()} == {ROWS}, "what drift compares, of rows without labels"
