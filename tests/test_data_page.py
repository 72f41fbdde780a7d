"""Every command of docs/data.md means what the page says. Nothing is trained."""

import re
import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path

from llmft.config.load import load

PAGE = (Path(__file__).resolve().parents[1] / "docs/data.md").read_text(encoding="utf-8")


def test_its_commands_are_understood(write: Callable[[str, str], Path]) -> None:
    write("reviews.jsonl", '{"text": "a", "label": "b"}\n')
    write("doccano.jsonl", '{"text": "a", "label": []}\n')
    write("texts/positive/1.txt", "a")
    with sqlite3.connect("shop.db") as database:
        database.execute("create table orders (year, returned)")
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = {}
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["llmft", "finetune"]
        found[line] = load("finetune", words[2:]).dataset
    formats = [data.format for data in found.values()]
    assert formats == ["json", "excel", "csv", "folder", "sqlite", "json", "hub", "csv"]


def test_its_options_are_those_that_there_are() -> None:
    from llmft.config.folders import options

    assert set(re.findall(r"^\| `dataset=(\w+)`", PAGE, re.MULTILINE)) <= set(options("dataset"))
