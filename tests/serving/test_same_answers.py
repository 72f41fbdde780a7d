"""What is served is what `llmft predict` answers, for every task."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmft import api
from llmft.config.load import load as compose
from llmft.models.generate import set_generation
from llmft.predictions.inputs import Row
from llmft.runs.folder import as_recipe
from llmft.serving.models import Served
from llmft.tasks.measurements import Meter
from llmft.tasks.optional import Draws, Explains, HasExample
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


def served(run: Path, *bodies: list[dict[str, Any]]) -> tuple[Served, list[list[dict[str, Any]]]]:
    """A model in a service that has ended, and its answers to the rows of some requests."""
    from llmft.serving.app import create

    app = create(str(run), max_text=10**6)
    app.state.models.load_all()
    found = Client(app).together(*[("POST", "/predict", {"json": {"rows": body}}) for body in bodies])
    model = app.state.models.get(app.state.models.names()[0])
    model.batcher.close()
    assert {each.status_code for each in found} == {200}, found[0].text
    return model, [each.json()["answers"] for each in found]


def predicted(run: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `llmft predict` answers, through JSON."""
    answers = api.load(run).predict(rows)
    assert [answer["error"] for answer in answers if "error" in answer] == []
    return list(json.loads(json.dumps(answers)))


@pytest.mark.parametrize("name", CASES)
def test_served_is_predicted(name: str, here: Path) -> None:
    run = run_of(name, here / "run")
    rows = json.loads((run / "rows.json").read_text())
    model, (answers,) = served(run, rows)
    expected = predicted(run, rows)
    assert len(answers) == ROWS
    assert alike(answers, expected)
    ((_, encoded),), _ = model.read([Row(str(place), row) for place, row in enumerate(rows)])
    measured = Meter(model.task, None).measure(encoded.rows, expected)
    assert {len(values) for values in measured.values()} == {ROWS}, "what drift compares, of rows without labels"


@pytest.mark.parametrize("name", ["image_classification", "text_classification"])
def test_an_answer_is_explained_as_predict_does(name: str, here: Path) -> None:
    """By the queue of the service, through which an image is asked 50 times; and drawn."""
    from llmft.serving.app import create

    run = run_of(name, here / "run")
    (row, *_) = json.loads((run / "rows.json").read_text())
    app = create(str(run))
    app.state.models.load_all()
    client, (about,) = Client(app), app.state.models.names()
    model = app.state.models.get(about)
    if not isinstance(model.task, Explains):
        pytest.skip(f"{name} explains nothing yet")
    body = {"row": row, "explain": True} | ({"draw": True} if isinstance(model.task, Draws) else {})
    (answer,) = client.predict(**body)["answers"]
    (expected,) = api.load(run, "predict.explain=true").predict([row])
    if isinstance(model.task, Draws):
        assert Image.open(io.BytesIO(base64.b64decode(answer.pop("drawing")))).format == "PNG"
    assert nearly(answer, json.loads(json.dumps(expected)))
    assert client.ask("POST", "/predict", json={"row": row, "explain": "yes"}).status_code == 422
    model.batcher.close()


EXPORTED = [name for name, case in CASES.items() if compose(case.command, [f"+recipe={case.recipe}"]).task.exports]
FAST = ("tabular",)  # test_serve.py has an export of texts; tests/export compares all of them without a service


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in EXPORTED]
)
def test_a_served_export_is_its_run(name: str, here: Path, llmft: Callable[..., tuple[int, str, str]]) -> None:
    """Also bit for bit alone and in company: float32 in ONNX."""
    run = run_of(name, here / "run")
    rows = json.loads((run / "rows.json").read_text())
    code, _, err = llmft("export", "run", "run.dir=onnx", "export.max_loss=1")
    assert code == 0, err
    _, (answers, *alone) = served(here / "onnx", rows, *([row] for row in rows))
    assert answers == [answer for body in alone for answer in body]
    assert answers == predicted(here / "onnx", rows)
    assert nearly(answers, predicted(run, rows))


def nearly(one: Any, other: Any) -> bool:
    """Whether answers are the same except for numbers that differ by 1e-4."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(nearly(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(nearly, one, other))
    return bool(one == pytest.approx(other, abs=1e-4, rel=1e-4) if isinstance(one, float) else one == other)
