"""A disk that is full at any moment: said in a line, and what was written before is gone on from."""

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disks import failing
from tests.faults.test_resume import TABLE, outcome

Run = Callable[..., tuple[int, str, str]]
WORDS = (*TABLE, "trainer.max_steps=4", "trainer.keep=2")


@pytest.mark.parametrize("first", [1, pytest.param(2, marks=pytest.mark.slow)], ids=["odd", "even"])
def test_r3_each_write_may_be_the_one_that_fails(
    first: int, llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file that is to last is synced: the N-th sync fails, for every second N until the run goes through."""
    assert llmft(*WORDS, "run.dir=whole")[0] == 0
    whole = outcome(here / "whole")
    for number in count(first, 2):
        words = (*WORDS, f"run.dir=run{number}")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(os.fsync, number))
            code, _, err = llmft(*words)
        if code == 0:
            break
        assert code in (1, 2)
        assert "No space left on device" in err
        code, _, err = llmft(*words, "resume=true")
        assert code == 0, err
        assert outcome(here / f"run{number}") == whole
    assert number > 25, "a sync for each file of two checkpoints, and for those of the run itself"


def test_a_disk_without_room_for_two_checkpoints_is_said_before_training(
    llmft: Run, here: Path, monkeypatch: Any
) -> None:
    plain = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: plain(path)._replace(free=1_000_000))
    code, out, err = llmft("finetune", "+recipe=bert_textcls", "smoke=true", "run.dir=run")
    assert code == 1
    assert "failed: run has 1 MB free, and two checkpoints need" in err
    assert "step" not in out.partition("folder")[2]
