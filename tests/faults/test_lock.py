"""One process works in a folder at a time. Names in brackets: the faults of the reliability table."""

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from llmft.cli import main
from llmft.config.load import load
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.job import Job
from llmft.schema.problem import UserError
from llmft.sweeps.layout import Sweep
from tests.faults.test_kill import forked
from tests.faults.test_resume import SMOKE


def test_r19_two_runs_do_not_share_a_folder(llmft: Callable[..., Any], here: Path, at_step: Any) -> None:
    def stay(**_: Any) -> None:
        (here / "in step 3").touch()
        time.sleep(60)

    at_step(3, stay)
    child = forked(lambda: main([*SMOKE, "run.dir=run"]))
    while not (here / "in step 3").exists():
        time.sleep(0.01)
    code, _, err = llmft(*SMOKE, "run.dir=run", "resume=true")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert code == 2
    assert "another process is at work in run" in err


FOLDERS: dict[str, Callable[[Config], AbstractContextManager[None]]] = {
    "a run": lambda config: Run.create(config).alone(),
    "a sweep": lambda config: Sweep.of([Job({"seed": 0}, config)]).alone(),
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_locked_over_nfs(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There an exclusive lock is refused to what is open for reading alone (flock(2), NFS details)."""

    def flock(file: Any, _: int) -> None:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", flock)
    with FOLDERS[folder](load("finetune", ["+recipe=bert_textcls", "run.dir=x"])):
        pass


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_that_cannot_be_locked_says_why(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    alone = FOLDERS[folder](load("finetune", ["+recipe=bert_textcls", "run.dir=x"]))
    with pytest.raises(UserError, match=r"run.dir  x/\S+ cannot be locked: No locks available"), alone:
        pass
