"""CONTRIBUTING.md: its task is made as the page shows it, found by its entry point, and goes through the commands."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.tasks.task import Task

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
PAGE = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def package(install: Callable[..., None]) -> None:
    """The package of the page."""
    (point,) = tomllib.loads(block("toml"))["project"]["entry-points"]["llmft.tasks"].items()
    install("sentence_length", block("python"), *point)


def test_the_task_of_the_page_goes_through_its_commands(package: None, llmft: Run, here: Path) -> None:
    commands = [shlex.split(line)[1:] for line in block("sh").splitlines()]
    assert [words[0] for words in commands] == ["finetune", "eval", "predict", "export"]
    said = []
    for words in commands:
        code, out, err = llmft(*words)
        assert code == 0, err
        said.append(out)
    metrics = json.loads((here / "lengths/metrics.json").read_text())
    rows = [json.loads(line) for line in (here / "lengths/predictions/test.jsonl").read_text().splitlines()]
    assert metrics["test"]["accuracy"] == sum(row["answer"] == row["label"] for row in rows) / len(rows)
    assert json.loads(said[2])["answer"] in ("short", "medium", "long")
    assert "sentence_length" in (here / "lengths/report.html").read_text()


def test_labels_that_it_does_not_know_are_told(package: None, llmft: Run, write: Write) -> None:
    write("rows.csv", "text,label\n" + "".join(f"text {i},{('short', 'tiny')[i % 2]}\n" for i in range(40)))
    words = ("+recipe=bert_textcls", "smoke=true", "task.name=sentence_length", "dataset=csv", "dataset.train=rows.csv")
    code, _, err = llmft("finetune", *words)
    assert code == 2
    assert "tiny" in err


def test_it_has_no_more_methods_than_the_page_says() -> None:
    methods = re.findall(r"^    def (\w+)", block("python").partition("class SentenceLength(Task")[2], re.MULTILINE)
    assert len(methods) == 9
    assert Task.__abstractmethods__ < set(methods), "eight must be written"
    assert len(Task.__abstractmethods__) == 8
