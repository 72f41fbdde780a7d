"""What is printed at the end of a run, and how often while it trains."""

from pathlib import Path

import pytest

from llmft.config.load import load
from llmft.reporting.console import conclude, scores_line
from llmft.runs.folder import Run
from llmft.training.arguments import training_arguments
from llmft.training.hardware import detect


@pytest.mark.parametrize(("accuracy", "how"), [(0.82, "met"), (0.8367, "met"), (0.81, "missed")])
def test_a_promise_is_met_or_missed(accuracy: float, how: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conclude(load("finetune", ["+recipe=bert_textcls"]), {"test": {"accuracy": accuracy}}, Run(here))
    assert f"  promised   accuracy 0.82 on test, by the recipe as it is: {how}\n" in capsys.readouterr().out


def test_other_settings_promise_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("trainer.max_steps=2", "optimizer=sgd", "dataset.max_rows=100"):
        conclude(load("finetune", ["+recipe=bert_textcls", word]), {"test": {"accuracy": 0.9}}, Run(here))
    assert "promised" not in capsys.readouterr().out


@pytest.mark.parametrize(("steps", "every"), [(8, 1), (60, 6), (100, 10), (5000, 10)])
def test_a_run_logs_at_least_ten_times(steps: int, every: int, here: Path) -> None:
    config = load("finetune", ["hardware.device=cpu"])
    arguments = training_arguments(config, detect(config.hardware), here, True, steps)
    assert arguments.logging_steps == every


def test_scores_wrap_between_pairs_at_a_hundred_columns() -> None:
    names = ("loss", "accuracy", "precision", "recall", "f1", "roc_auc", "matthews", "ece")
    assert scores_line("test", dict.fromkeys(names, 0.5)).splitlines() == [
        "  test       loss 0.5000  accuracy 0.5000  precision 0.5000  recall 0.5000  f1 0.5000",
        "             roc_auc 0.5000  matthews 0.5000  ece 0.5000",
    ]
    assert scores_line("validation", {"loss": 0.5}) == "  validation loss 0.5000"


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["+recipe=bert_textcls", "dataset.train=a.xlsx"], "dataset=excel dataset.test=YOUR.xlsx"),
        (["+recipe=bert_ner", "dataset.train=a.jsonl"], "dataset=json dataset.test=YOUR.jsonl"),
        (["+recipe=bert_ner"], "dataset=conll dataset.test=YOUR.conll"),
    ],
)
def test_what_comes_next_reads_the_kind_of_file_of_training(
    words: list[str], files: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in words[1:]:
        Path(word.removeprefix("dataset.train=")).write_bytes(b"")
    conclude(load("finetune", words), {"test": {"loss": 0.5}}, Run(here))
    assert capsys.readouterr().out.endswith(f"  next       llmft eval {here} {files}\n")
