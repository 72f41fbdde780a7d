"""What is printed at the end of a run, and how often while it trains."""

import sys
from pathlib import Path

import pytest

from llmft.config.load import load
from llmft.data.source import listed
from llmft.reporting.console import conclude, metrics_line
from llmft.reporting.lines import phase
from llmft.runs.folder import Run
from llmft.schema.problem import Problem, UserError, plural
from llmft.training.hardware import detect
from llmft.training.loop import training_arguments


@pytest.mark.parametrize(("accuracy", "how"), [(0.82, "met"), (0.8367, "met"), (0.81, "missed")])
def test_a_promise_is_met_or_missed(accuracy: float, how: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conclude(load("finetune", ["+recipe=bert_textcls"]), {"test": {"accuracy": accuracy}}, Run(here))
    assert f"  promised   accuracy 0.82 on test by the recipe: {how}\n" in capsys.readouterr().out


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
    assert metrics_line("test", dict.fromkeys(names, 0.5)).splitlines() == [
        "  test       loss 0.5000  accuracy 0.5000  precision 0.5000  recall 0.5000  f1 0.5000",
        "             roc_auc 0.5000  matthews 0.5000  ece 0.5000",
    ]
    assert metrics_line("validation", {"loss": 0.5}) == "  validation loss 0.5000"


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["+recipe=bert_textcls", "dataset.train=a.xlsx"], "dataset=excel dataset.test=YOUR.xlsx"),
        (["+recipe=bert_ner", "dataset.train=a.jsonl"], "dataset=json dataset.test=YOUR.jsonl"),
        (["+recipe=bert_ner"], "dataset=conll dataset.test=YOUR.conll"),
        (["+recipe=mnist_mlp", "dataset=idx"], "dataset=idx dataset.test=[YOUR_IMAGES,YOUR_LABELS]"),
        (["+recipe=cifar_resnet", "dataset=cifar"], "dataset=cifar dataset.test=YOUR.bin"),
        (["+recipe=detection", "dataset=voc", "dataset.train=a"], "dataset=voc dataset.test=YOUR_FOLDER"),
    ],
)
def test_what_comes_next_reads_the_kind_of_file_of_training(
    words: list[str], files: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in words[1:]:
        if word.startswith("dataset.train="):
            Path(word.removeprefix("dataset.train=")).write_bytes(b"")
    conclude(load("finetune", words), {"test": {"loss": 0.5}}, Run(here))
    assert capsys.readouterr().out.endswith(f"  next       llmft eval {here} {files}\n")


@pytest.mark.parametrize(
    ("number", "what", "told"),
    [
        (1, "labels", "1 label"),
        (1.0, "epochs", "1 epoch"),
        (0.27, "epochs", "0.27 epochs"),
        (0, "other rows", "0 other rows"),
        (
            1234,
            "rows that are also in other splits were left out",
            "1,234 rows that are also in other splits were left out",
        ),
        (1, "rows that are also in other splits were left out", "1 row that is also in other splits was left out"),
        (
            1,
            "keys beside the rows of a.json were not read: names",
            "1 key beside the rows of a.json was not read: names",
        ),
    ],
)
def test_one_of_a_kind_is_no_plural(number: float, what: str, told: str) -> None:
    assert plural(number, what) == told


def test_advice_is_no_mistake_and_a_line_of_more_counts_them() -> None:
    wrong = listed([Problem(f"a.csv:{row}", "has no label (train)") for row in range(2, 10)])
    text = str(UserError([*wrong, Problem("dataset.drop_unlabeled", "set it to true", mistakes=0)], "the data"))
    assert text.splitlines()[0] == "8 problems in the data"
    assert text.splitlines()[6:] == [
        "  a.csv                   and 3 more like these",
        "  dataset.drop_unlabeled  set it to true",
    ]


def test_a_sentence_of_a_library_is_not_stopped_twice() -> None:
    assert str(Problem("model.path", "the hub did not give it: No network.", hint="Try.")) == (
        "the hub did not give it: No network. Try."
    )
    assert str(Problem("model.path", "it is said.")) == "it is said."


def test_a_long_line_is_wrapped_on_a_terminal_and_whole_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "train: columns that are not read: first-column, second-column, third-column, fourth-column"
    phase("note", text)
    assert capsys.readouterr().out == f"  note      {text}\n"
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    phase("note", text)
    assert capsys.readouterr().out.splitlines() == [
        "  note      train: columns that are not read: first-column,",
        "            second-column, third-column, fourth-column",
    ]


@pytest.mark.parametrize(
    ("words", "called"),
    [
        ([], "reviews"),
        (["dataset=csv", "dataset.train=a/tickets.csv"], "tickets.csv"),
        (["dataset=json", "dataset.train=[a.jsonl,b.jsonl,c.jsonl]"], "a.jsonl and 2 more"),
        (["dataset=csv", "dataset.train=a.csv", "dataset.name=tickets"], "tickets"),
        (["dataset=hub", "dataset.path=stanfordnlp/imdb"], "stanfordnlp/imdb"),
    ],
)
def test_data_without_a_name_are_called_by_their_file(words: list[str], called: str) -> None:
    assert load("finetune", ["+recipe=bert_textcls", *words]).dataset.display_name == called
