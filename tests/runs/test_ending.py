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


def test_a_file_that_we_forgot_to_look_for_is_a_bug_of_ours() -> None:
    def work() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "a.csv")

    with pytest.raises(FileNotFoundError):
        ending(work)
