"""`llmft eval RUN RUN ... ensemble=mean`: what several runs say together, and which runs cannot."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.cli import main

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
TABLE = ("finetune", "+recipe=tabular_mlp", "smoke=true", "dataset=csv", "dataset.train=a.csv", "optimizer.lr=0.01")
NEW = ("dataset=csv", "dataset.test=new.csv")


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def answers(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions/test.jsonl").read_text().splitlines()]


ROWS = {
    "a.csv": [(i * 7 % 60, "high" if i * 7 % 60 > 30 else "low") for i in range(60)],
    "new.csv": [(i + 0.5, "high" if i > 30 else "low") for i in range(20, 45)],
}


@pytest.fixture
def rows(write: Write) -> None:
    for name, found in ROWS.items():
        write(name, "size,label\n" + "".join(f"{size},{label}\n" for size, label in found))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of a sweep, made once."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LLMFT_CACHE", str(folder / "cache"))
        Path("a.csv").write_text("size,label\n" + "".join(f"{size},{label}\n" for size, label in ROWS["a.csv"]))
        assert main([TABLE[0], "-m", *TABLE[1:], "seed=0,1,2", "run.dir=s"]) == 0
    return folder / "s"


@pytest.fixture
def sweep(trained: Path, rows: None, here: Path) -> Path:
    """The sweep in the working directory."""
    shutil.copytree(trained, here / "s")
    return here / "s"


@pytest.mark.parametrize("how", ["mean", "vote"])
def test_runs_answer_together(how: str, sweep: Path, llmft: Run, here: Path) -> None:
    code, out, err = llmft("eval", "s/seed-0", "s/seed-1", "s/seed-2", f"ensemble={how}", "run.dir=e")
    assert (code, err) == (0, "")
    members = [answers(sweep / f"seed-{seed}") for seed in range(3)]
    found = answers(here / "e")
    for together, *each in zip(found, *members, strict=True):
        assert {row["id"] for row in each} == {together["id"]}
        say = [row["answer"] for row in each]
        expected = {name: sum(row["scores"][name] for row in each) / 3 for name in ("high", "low")}
        if how == "vote":
            expected = {name: say.count(name) / 3 for name in ("high", "low")}
        assert together["scores"] == pytest.approx(expected, abs=1e-6)
        assert together["answer"] == max(expected, key=expected.__getitem__)
    metrics = read(here / "e/metrics.json")
    assert metrics["test"]["accuracy"] == sum(row["answer"] == row["label"] for row in found) / len(found)

    # Each run beside it, with the scores that it has alone; and a report.
    for seed, member in enumerate(metrics["members"]):
        own = read(sweep / f"seed-{seed}/metrics.json")
        assert (member["run"], member["weight"]) == (f"s/seed-{seed}", 1.0)
        assert member["test"] == {k: v for k, v in own["test"].items() if isinstance(v, float)}
        row = [line for line in out.splitlines() if line.startswith(f"  seed-{seed} ")][-1]
        assert row.split()[1] == f"{own['test']['accuracy']:.4f}"
    assert f"  {how} of 3" in out
    assert f"{how} of 3 runs" in (here / "e/report.html").read_text()
    assert read(here / "e/manifest.json")["sources"] == ["s/seed-0", "s/seed-1", "s/seed-2"]

    # The folder of the sweep stands for its runs.
    assert llmft("eval", "s", f"ensemble={how}", "run.dir=f")[0] == 0
    assert read(here / "f/metrics.json") == metrics


def test_weights_and_other_data(sweep: Path, llmft: Run, here: Path) -> None:
    assert llmft("eval", "s/seed-1", *NEW, "run.dir=one")[0] == 0
    assert llmft("eval", "s", *NEW, "ensemble.weights=[0,1,0]", "run.dir=e")[0] == 0
    assert [row["answer"] for row in answers(here / "e")] == [row["answer"] for row in answers(here / "one")]
    assert read(here / "e/metrics.json")["test"]["roc_auc"] == read(here / "one/metrics.json")["test"]["roc_auc"]


def test_thresholds_count_and_no_temperature_is_undone(llmft: Run, here: Path) -> None:
    words = ("task.problem=multi_label", "task.threshold=f1", "task.calibrate=true", "run.dir=m")
    assert llmft("finetune", "+recipe=tabular_mlp", "smoke=true", "optimizer.lr=0.01", *words)[0] == 0
    facts = read(here / "m/model/task.json")
    facts["target"] |= {"thresholds": [0.3, 0.7], "temperature": 2.0}
    (here / "m/model/task.json").write_text(json.dumps(facts))
    assert llmft("eval", "m", "run.dir=one")[0] == 0
    shutil.copytree(here / "m", here / "twin")
    assert llmft("eval", "m", "twin", "ensemble=mean", "run.dir=e")[0] == 0
    said = [row["answer"] for row in answers(here / "one")]
    assert [row["answer"] for row in answers(here / "e")] == said
    one, both = (read(here / f"{name}/metrics.json")["test"] for name in ("one", "e"))
    assert one["ece"] == pytest.approx(both["ece"])
    assert "ece_uncalibrated" in one
    assert "ece_uncalibrated" not in both


def test_folds_have_seen_the_rows_of_each_other(rows: None, llmft: Run, here: Path) -> None:
    assert llmft(*TABLE, "dataset.folds=2", "run.dir=s")[0] == 0
    code, _, err = llmft("eval", "s", "ensemble=mean", "run.dir=e")
    assert code == 2
    assert "s/fold-1  was trained on other rows, maybe on the test rows: dataset.fold is 1, in s/fold-0 0" in err
    assert llmft("eval", "s", "ensemble=mean", *NEW, "run.dir=e")[0] == 0


REFUSED = {
    "s": "must be one run, got 3 (command line). Write ensemble=mean or ensemble=vote",
    "s/seed-0 ensemble=mean": "needs two runs or more",
    "s ensemble.weights=[1,2]": "must have a weight for each of the 3 runs, got 2",
    "s ensemble.weights=[0,0,0]": "must have a weight above 0",
    "s ensemble.weights=[1,-2,1]": "must be at least 0, got -2",
    "s ensemble=median": "no such ensemble",
    "s none ensemble=mean": "none  no such folder",
    "s/seed-0 texts ensemble=mean": "texts  has task.name text_classification, and s/seed-0 has tabular",
    "s/seed-0 other ensemble=mean dataset=csv dataset.test=new.csv": "other  answers large, small, and s/seed-0 answers high, low",
    "s s/seed-0 ensemble=mean": "s/seed-0  is named twice",
    "empty ensemble=mean": "empty  is a sweep without a finished run",
}


def test_runs_that_cannot_answer_together(sweep: Path, llmft: Run, here: Path, write: Write) -> None:
    text = (here / "a.csv").read_text()
    write("b.csv", text.replace("high", "large").replace("low", "small"))
    write("empty/summary.json", '{"jobs": [{"status": "failed", "folder": "x"}]}')
    assert llmft(*TABLE, "dataset.train=b.csv", "run.dir=other")[0] == 0
    assert llmft("finetune", "+recipe=bert_textcls", "smoke=true", "trainer.max_steps=1", "run.dir=texts")[0] == 0
    for words, what in REFUSED.items():
        code, _, err = llmft("eval", *words.split(), "run.dir=e")
        assert code == 2, words
        assert what in err, words
        assert not (here / "e").exists()


def test_it_is_for_eval(llmft: Run) -> None:
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", "ensemble=mean")
    assert code == 2
    assert "ensemble  is only for llmft eval" in err
