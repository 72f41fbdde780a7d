"""What a command says last, and its exit code."""

import errno
import os

import pytest

from llmft.runs.ending import ending

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
