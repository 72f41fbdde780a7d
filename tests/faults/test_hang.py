"""A step that never ends. Names in brackets: the faults of the reliability table."""

import json
import os
import time
from pathlib import Path

import psutil
import pytest
from torch.utils.data import get_worker_info

from llmft.cli import main
from llmft.runs import checkpoints
from llmft.training.features import FeatureSet
from tests.faults.test_kill import forked

WORDS = [
    "finetune",
    "+recipe=bert_textcls",
    "smoke=true",
    "trainer.save_every=2",
    "trainer.eval_every=2",
    "run.dir=run",
]


def sleep_in_a_worker(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A loader's worker that gives `after` batches, one of them ahead of its step, and then sleeps for ever."""
    plain = FeatureSet.__getitems__
    given = 0

    def getitems(self: FeatureSet, indices: list[int]) -> list[dict[str, object]]:
        nonlocal given
        if get_worker_info() is not None:
            given += 1
            if given > after:
                time.sleep(3600)
        return plain(self, indices)

    monkeypatch.setattr(FeatureSet, "__getitems__", getitems)


def test_r18_a_worker_that_hangs_ends_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep_in_a_worker(monkeypatch, after=3)
    start = time.monotonic()
    child = forked(lambda: os._exit(main([*WORDS, "trainer.workers=1", "trainer.step_timeout=6"])))
    deadline = start + 60
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert done != (0, 0), "it still hangs"
    assert os.waitstatus_to_exitcode(done[1]) == 1
    stacks = (here / "run/stacks_0.txt").read_text()
    assert "data/dataloader.py" in stacks
    manifest = json.loads((here / "run/manifest.json").read_text())
    assert (manifest["status"], manifest["why"]) == ("failed", "no step for 6 s, after step 2")
    assert checkpoints.latest(here / "run/checkpoints")[0] == here / "run/checkpoints/checkpoint-2"
    assert not [p for p in psutil.Process().children(recursive=True) if "pt_data_worker" in p.name()]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert main([*WORDS, "trainer.workers=1", "trainer.step_timeout=6", "resume=true"]) == 0


def test_scoring_and_saving_take_what_they_take(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = checkpoints.commit

    def slow(checkpoint: Path) -> None:
        if checkpoint.name == "checkpoint-2":
            time.sleep(8)
        plain(checkpoint)

    monkeypatch.setattr(checkpoints, "commit", slow)
    child = forked(lambda: os._exit(main([*WORDS, "trainer.step_timeout=6"])))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
