"""Run folders of version 0.1.0 are read by every command that reads one. `version_0_1_0/make.py` made them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmft
from llmft.data.files import resolve
from llmft.runs.folder import Run as RunFolder
from llmft.schema.migrate import migrate
from llmft.schema.problem import UserError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def older(here: Path) -> None:
    """The runs, `done` and `stopped`, and their data in the current folder."""
    shutil.copytree(Path(__file__).parent / "version_0_1_0", here, dirs_exist_ok=True)


def scores(folder: str) -> Any:
    return json.loads(Path(folder, "metrics.json").read_text())


def test_eval_gives_the_scores_of_training(llmft: Run) -> None:
    code, _, err = llmft("eval", "done", "run.dir=eval")
    assert code == 0, err
    assert {split: scores("eval")[split] for split in ("validation", "test")} == {
        split: scores("done")[split] for split in ("validation", "test")
    }


def test_predict_gives_the_answers_of_training(llmft: Run) -> None:
    code, _, err = llmft("predict", "done", "predict.input=test.csv", "predict.output=answers.jsonl")
    assert code == 0, err
    answers, known = (
        [json.loads(line) for line in Path(file).read_text().splitlines()]
        for file in ("answers.jsonl", "done/predictions/test.jsonl")
    )
    assert [answer["answer"] for answer in answers] == [line["answer"] for line in known]
    for answer, line in zip(answers, known, strict=True):
        assert answer["scores"] == pytest.approx(line["scores"], abs=1e-6)


def test_an_export_agrees_with_it(llmft: Run) -> None:
    """In the format that is written without tracing the model, 5 s: what an older run has of its own is read for all."""
    code, _, err = llmft("export", "done", "export.format=safetensors", "run.dir=export")
    assert code == 0, err
    code, _, err = llmft("eval", "./export", "run.dir=again")
    assert code == 0, err
    assert scores("again")["test"]["loss"] == pytest.approx(scores("done")["test"]["loss"], abs=1e-6)


def test_a_stopped_run_ends_as_one_that_was_not_stopped(llmft: Run) -> None:
    code, out, err = llmft("finetune", "stopped/config.yaml", "run.dir=stopped", "resume=true")
    assert code == 0, err
    assert "resumes   after step 4" in out
    assert {split: scores("stopped")[split] for split in ("validation", "test")} == {
        split: scores("done")[split] for split in ("validation", "test")
    }


def test_sample_sets_are_found_by_the_paths_that_they_had() -> None:
    samples = Path(llmft.__path__[0], "samples")
    assert resolve("package:llmft/data/reviews", "dataset.path") == samples / "reviews"
    assert migrate({"dataset": {"path": "package:llmft/data/chats"}}) == {
        "dataset": {"path": "package:llmft/samples/chats"}
    }
    assert migrate({"dataset": {"path": "my/data/reviews"}}) == {"dataset": {"path": "my/data/reviews"}}
    run = RunFolder(
        Path(),
        {
            "data": {
                "/lib/llmft/data/reviews/train.csv": "0a",
                "C:\\llmft\\data\\pairs\\test.csv": "1b",
                "/llmft/data/own/a.csv": "2c",
            }
        },
    )
    now = {
        "/lib/llmft/samples/reviews/train.csv": "0a",
        "C:\\llmft\\samples\\pairs\\test.csv": "1b",
        "/llmft/data/own/a.csv": "2c",
    }
    run.check_data(now)
    with pytest.raises(UserError, match=r"reviews.train\.csv"):
        run.check_data(now | {"/lib/llmft/samples/reviews/train.csv": "changed"})
