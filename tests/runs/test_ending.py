"""What a command says last, and its exit code."""

import errno
import os
import shutil
import sys

import pytest

from llmft.runs.ending import ending
from llmft.schema.problem import Problem, UserError

DISKS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EIO: "Input/output error",
    errno.EROFS: "Read-only file system",
}


@pytest.mark.parametrize("number", DISKS)
def test_what_the_disk_says_is_said(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def work(*file: str) -> None:
        raise OSError(number, os.strerror(number), *file)

    assert ending(lambda: work("run/评论.json")) == 1
    assert capsys.readouterr().err == f"failed: run/评论.json: {DISKS[number]}\n"
    assert ending(work) == 1
    assert capsys.readouterr().err == f"failed: {DISKS[number]}\n"


def test_so_is_what_it_says_to_safetensors_and_tokenizers(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise Exception("I/O error: No space left on device (os error 28)")

    assert ending(work) == 1
    assert capsys.readouterr().err == "failed: I/O error: No space left on device (os error 28)\n"


def test_a_terminal_shows_each_hint_on_its_own_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    what = "must be a multiple of trainer.eval_every (30), got 100"
    problems = [
        Problem("trainer.save_every", what, "recipes/mine.yaml:7", "Write trainer.save_every=90."),
        Problem("seed", "must be at least 0, got -1", "command line"),
    ]

    def work() -> None:
        raise UserError(problems)

    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((70, 24)))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert ending(work) == 2
    assert capsys.readouterr().err == (
        "error: 2 problems in this configuration\n"
        "  trainer.save_every  must be a multiple of trainer.eval_every (30),\n"
        "                      got 100 (recipes/mine.yaml:7)\n"
        "                      Write trainer.save_every=90.\n"
        "  seed                must be at least 0, got -1 (command line)\n"
    )
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert ending(work) == 2
    assert (
        f"  trainer.save_every  {what} (recipes/mine.yaml:7). Write trainer.save_every=90.\n" in capsys.readouterr().err
    )


OURS = [
    FileNotFoundError(errno.ENOENT, "No such file or directory", "a.csv"),
    Exception("No such file or directory (os error 2)"),
    ValueError("28"),
]


@pytest.mark.parametrize("error", OURS)
def test_a_bug_of_ours_keeps_its_traceback(error: Exception) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        ending(work)
