"""`dataset.folds=3`: a run for each fold, the mean and deviation of each metric, and an answer for every row."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from llmft.tasks.images import shapes

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
TABLE = ("finetune", "+recipe=tabular_mlp", "smoke=true")
FOLDS = (*TABLE, "dataset=csv", "dataset.train=a.csv", "dataset.folds=3", "run.dir=s")


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture
def rows(write: Write) -> None:
    write("a.csv", "size,label\n" + "".join(f"{i},{'high' if i > 30 else 'low'}\n" for i in range(60)))


def test_every_row_is_answered_once_and_every_metric_is_averaged(rows: None, llmft: Run, here: Path) -> None:
    code, out, err = llmft(*FOLDS)
    assert (code, err) == (0, "")
    facts = read(here / "s/summary.json")
    runs = [here / f"s/fold-{fold}" for fold in range(3)]
    assert [job["values"] for job in facts["jobs"]] == [{"dataset.fold": fold} for fold in range(3)]
    lines = [json.loads(line) for run in runs for line in (run / "predictions/test.jsonl").read_text().splitlines()]
    assert sorted(line["id"] for line in lines) == sorted(f"a.csv:{line}" for line in range(2, 62))
    (group,) = facts["ranking"]
    for split in ("validation", "test"):
        scores = [read(run / "metrics.json")[split] for run in runs]
        for name in ("loss", "accuracy", "roc_auc", "f1"):
            found = [score[name] for score in scores]
            expected = {"mean": mean(found), "sd": stdev(found), "count": 3}
            assert group["scores"][split][name] == pytest.approx(expected)
            assert f"{mean(found):.4f} ± {stdev(found):.4f}" in next(
                r for r in out.splitlines() if r.startswith(f"  {name} ")
            )

    # Nothing was chosen: no fold is the best.
    assert facts["best"] is None
    assert not (here / "s/best.yaml").exists()
    assert "ranked by" not in out
    assert "3 of 3 runs  validation" in out

    # A fold is a run like any other, and is scored again on its own rows.
    assert llmft("eval", "s/fold-1", "run.dir=again")[0] == 0
    assert read(here / "again/metrics.json")["test"] == read(runs[1] / "metrics.json")["test"]
    assert "3 of them are finished already" in llmft(*FOLDS)[1]
    code, _, _ = llmft(*FOLDS[:-1], "dataset.fold=2", "run.dir=alone")
    assert read(here / "alone/metrics.json")["test"] == read(runs[2] / "metrics.json")["test"]


@pytest.mark.parametrize(
    ("recipe", "column", "metric"), [("segmentation", "mask", "iou_by_image"), ("detection", "boxes", "map")]
)
def test_each_image_is_answered_once(recipe: str, column: str, metric: str, llmft: Run, here: Path) -> None:
    """Masks and boxes, which are no labels to keep the shares of."""
    if recipe == "detection":
        pytest.importorskip("faster_coco_eval")
    found = shapes.scenes(9, 0, telling=True)
    cells = {name: [base64.b64encode(cell["bytes"]).decode() for cell in found[name]] for name in ("image", "mask")}
    rows = [dict(zip((found | cells), row, strict=True)) for row in zip(*(found | cells).values(), strict=True)]
    kept = ("image", column)
    (here / "a.jsonl").write_text("".join(json.dumps({name: row[name] for name in kept}) + "\n" for row in rows))
    words = ["dataset=json", "dataset.train=a.jsonl", "dataset.split.validation=0", "dataset.folds=3"]
    code, _, err = llmft("finetune", f"+recipe={recipe}", "smoke=true", "trainer.max_steps=2", *words, "run.dir=s")
    assert code == 0, err
    runs = [here / f"s/fold-{fold}" for fold in range(3)]
    answers = [json.loads(line) for run in runs for line in (run / "predictions/test.jsonl").read_text().splitlines()]
    assert sorted(answer["id"] for answer in answers) == [f"a.jsonl:{line}" for line in range(1, 10)]
    (group,) = read(here / "s/summary.json")["ranking"]
    scores = [read(run / "metrics.json")["test"][metric] for run in runs]
    assert group["scores"]["test"][metric] == pytest.approx({"mean": mean(scores), "sd": stdev(scores), "count": 3})


def test_settings_are_compared_by_their_mean_over_folds(rows: None, llmft: Run, here: Path) -> None:
    code, out, err = llmft(FOLDS[0], "-m", *FOLDS[1:], "optimizer.lr=0.0001,0.05", "dataset.folds=2", "seed=0,1")
    assert (code, err) == (0, "")
    facts = read(here / "s/summary.json")
    assert [job["folder"] for job in facts["jobs"]][:3] == ["lr-0.0001_seed-0_fold-0", "lr-0.0001_seed-0_fold-1", "lr-0.0001_seed-1_fold-0"]  # fmt: skip
    assert [(group["values"], len(group["folders"])) for group in facts["ranking"]] == [
        ({"optimizer.lr": 0.05}, 4),
        ({"optimizer.lr": 0.0001}, 4),
    ]
    assert "4 of 4" in out
    # The best settings, as one run on all rows.
    assert facts["best"].startswith("lr-0.05")
    assert llmft("finetune", "s/best.yaml", "run.dir=whole")[0] == 0
    config = (here / "whole/config.yaml").read_text()
    assert "folds: null" in config and "lr: 0.05" in config


REFUSED = {
    "dataset.fold=3 dataset.folds=3": "dataset.fold  must be 0 to 2, got 3 (command line)",
    "dataset.fold=3": "needs dataset.folds, the number of folds",
    "dataset.folds=1": "must be at least 2, got 1",
    "dataset.folds=3 dataset.test=b.csv": "must be unset: with folds, each fold is a test split (command line). Write dataset.test=null",
    "dataset.folds=3 dataset.streaming=true dataset.validation=b.csv dataset.split.test=0": "does not work with dataset.folds, which needs all rows in memory",
    "dataset.columns.group=g dataset.streaming=true dataset.validation=b.csv dataset.split.test=0": "so groups stay together",
    "dataset.folds=100 seed=range(11) -m": "must give at most 1,000 jobs, got 1,100",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_folds_is_refused(words: str, llmft: Run, here: Path) -> None:
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", "dataset=csv", "dataset.train=a.csv", *words.split())
    assert code == 2
    assert REFUSED[words] in err
    assert list(here.iterdir()) == []


def test_an_evaluation_is_of_one_fold(rows: None, llmft: Run) -> None:
    assert llmft(*TABLE, "dataset=csv", "dataset.train=a.csv", "run.dir=run")[0] == 0
    code, _, err = llmft("eval", "run", "dataset.folds=3")
    assert code == 2
    assert "must be given: eval works on one fold (command line). Write dataset.fold=0." in err


@pytest.mark.slow
def test_german_credit_over_five_folds(llmft: Run, shared: Callable[[str], Path], here: Path) -> None:
    """Measured: 0.7789 ± 0.0309."""
    data = shared("german_credit") / "german_credit.csv"
    words = ("+recipe=tabular_mlp", "dataset=csv", f"dataset.train={data}", "dataset.columns.label=target")
    code, out, err = llmft("finetune", *words, "dataset.folds=5", "run.dir=s")
    assert (code, err) == (0, "")
    assert read(here / "s/summary.json")["ranking"][0]["scores"]["test"]["roc_auc"]["mean"] >= 0.75
    assert "  roc_auc  " in out
