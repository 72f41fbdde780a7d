"""`llmft monitor`: whether the rows of a file are like those that a run was not trained on."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import llmft as api

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]


def customers(rows: int, seed: int, older: int = 0, plan: str = "basic") -> str:
    """A table: years, plan, and whether a customer left, which depends on the years."""
    draw = random.Random(seed)
    lines = []
    for _ in range(rows):
        years = draw.randint(0, 40)
        lines.append(f"{years + older},{draw.choice(['gold', plan])},{'yes' if years > 20 else 'no'}\n")
    return "years,plan,left\n" + "".join(lines)


@pytest.fixture
def run(llmft: Run, write: Write, here: Path) -> Path:
    write("customers.csv", customers(400, seed=0))
    words = ["dataset=csv", "dataset.train=customers.csv", "dataset.columns.label=left", "dataset.split.validation=0.3"]
    words += ["trainer.epochs=3", "task.baseline=false", "task.importance=false", "run.dir=run"]
    code, _, err = llmft("finetune", "+recipe=tabular_linear", *words)
    assert code == 0, err
    return here / "run"


def test_a_table(run: Path, llmft: Run, write: Write, here: Path) -> None:
    reference = json.loads((run / "model/reference.json").read_text())
    assert (reference["split"], reference["rows"]) == ("validation", 120)
    write("same.csv", customers(200, seed=1))
    code, out, err = llmft("monitor", "run", "dataset=csv", "dataset.test=same.csv", "run.dir=same")
    assert code == 0, err
    assert "as before column years, column plan, answer, confidence" in out
    assert "drift " not in out
    # Without labels, as a service has seen them; a value that training had not, and numbers that moved.
    lines = customers(200, seed=1, older=30, plan="new one").splitlines()
    write("other.csv", "".join(line.rpartition(",")[0] + "\n" for line in lines))
    code, out, err = llmft("monitor", "run", "dataset=csv", "dataset.test=other.csv", "run.dir=other", "--json")
    assert code == 0, err
    facts = json.loads(out.splitlines()[-1])
    drift = facts["metrics"]["drift"]
    assert {"column years", "column plan", "answer"} <= {*drift["alarms"]}
    found = {each["name"]: each for each in drift["statistics"]}
    assert found["column years"]["window"] - found["column years"]["reference"] == pytest.approx(30, abs=4)
    assert found["column plan"]["window"]["other"] == pytest.approx(0.5, abs=0.1)
    page = (here / "other/report.html").read_text(encoding="utf-8")
    assert all(part in page for part in ("<svg", "column years", "2.5%"))
    assert "new one" not in page  # the report has no text of the rows
    assert json.loads((here / "other/manifest.json").read_text())["status"] == "done"
    code, _, err = llmft("eval", "other")
    assert (code, "other  is a comparison and has no model: name its run" in err) == (2, True)


def test_an_export_carries_the_reference(run: Path, llmft: Run, write: Write, here: Path) -> None:
    pytest.importorskip("onnxruntime")
    code, _, err = llmft("export", "run", "dataset=csv", "dataset.test=customers.csv", "run.dir=exported")
    assert code == 0, err
    same = (here / "exported/model/reference.json").read_bytes()
    assert same == (run / "model/reference.json").read_bytes()
    write("same.csv", customers(200, seed=1))
    found = api.monitor("exported", "dataset=csv", "dataset.test=same.csv", "run.dir=seen")
    assert found.metrics["drift"]["alarms"] == []


def test_what_cannot_be_compared_is_said(run: Path, llmft: Run, write: Write, here: Path) -> None:
    write("same.csv", customers(60, seed=1))
    words = ["monitor", "run", "dataset=csv", "dataset.test=same.csv"]
    code, _, err = llmft("monitor", "run")
    assert code == 2
    assert "dataset.test  must be given" in err
    assert "dataset=csv dataset.test=FILE" in err
    file = run / "model/reference.json"
    for text, part in (
        ("{", "cannot be compared with"),
        ('{"format": 9}', "has format 9"),
        ("", "has no reference.json"),
    ):
        file.write_text(text) if text else file.unlink()
        code, _, err = llmft(*words)
        assert code == 2
        assert part in err
    assert not list(here.glob("outputs/*/*"))


def test_without_validation_rows_test_rows_are_the_reference(llmft: Run, write: Write, here: Path) -> None:
    write("train.csv", customers(200, seed=0))
    write("test.csv", customers(60, seed=2))
    words = ["dataset=csv", "dataset.train=train.csv", "dataset.test=test.csv", "dataset.columns.label=left"]
    words += [
        "dataset.split.validation=0",
        "trainer.epochs=1",
        "task.baseline=false",
        "run.dir=run",
        "dataset.max_overlap=1",
    ]
    code, _, err = llmft("finetune", "+recipe=tabular_linear", *words)
    assert code == 0, err
    reference = json.loads((here / "run/model/reference.json").read_text())
    assert (reference["split"], reference["rows"]) == ("test", 60)
