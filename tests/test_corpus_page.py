"""The page on raw text says what is so: its commands compose, and those that this command line has run."""

import re
import shlex
from collections.abc import Callable
from inspect import getsource
from pathlib import Path

import pytest

from llmft.data import clean
from llmft.data.documents import PIECE

PAGE = (Path(__file__).resolve().parents[1] / "docs/corpus.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_works(
    line: str, llmft: Callable[..., tuple[int, str, str]], write: Callable[[str, str], Path]
) -> None:
    words = shlex.split(line)[1:]
    for file in ("books/a.txt", "wiki.txt"):
        write(file, "A text.\n\nAnother.\n")
    write("pages.jsonl", '{"body": "A text."}\n')
    given = [word for word in words[1:] if not word.startswith("dataset")]
    for more in ([*words[1:], "--cfg", "job"], [*given, "smoke=true", "trainer.max_steps=1"]):
        code, _, err = llmft(words[0], *more)
        assert code == 0, err


def test_the_limits_of_the_page_are_those_of_the_rules() -> None:
    limits = (
        clean.LETTERS,
        clean.PUNCTUATION,
        clean.RUNS,
        clean.RUN,
        clean.WORD,
        clean.LINES,
        clean.PASSAGES,
    )
    assert limits == (0.5, 0.4, 0.2, 5, (1.5, 15.0), 0.3, 0.3)
    assert (clean.PASSAGE, clean.WORDS, PIECE) == (40, 20, 250_000)
    named = set(re.findall(r'return "(.+)"', getsource(clean.flaw)))
    assert named == {row.split(" | ")[0] for row in re.findall(r"^\| (.*)", PAGE, re.MULTILINE)} & named
    assert len(named) == 6
