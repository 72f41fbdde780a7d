"""kill -9 at any moment: what was committed is resumed, and the end is the same."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.cli import main
from llmft.data import committed
from llmft.runs import checkpoints
from tests.faults.test_resume import outcome

WORDS = [
    "finetune",
    "+recipe=bert_textcls",
    "smoke=true",
    "trainer.max_steps=40",
    "trainer.save_every=4",
    "trainer.eval_every=4",
    "dataset.max_rows=256",
]


def forked(run: Callable[[], None]) -> int:
    """Run in a child that has everything imported; its process id."""
    child = os.fork()
    if child == 0:
        try:
            with open(os.devnull, "w") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            run()
        finally:
            os._exit(0)
    return child


def killed_after(seconds: float, words: list[str]) -> None:
    """Start a run, and kill it so long after its first commit."""
    folder = Path(words[-1].partition("=")[2])
    child = forked(lambda: main(words))
    while not list(folder.glob(f"checkpoints/*/{checkpoints.MANIFEST}")):
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def killed_in_save(sync: int, words: list[str]) -> None:
    """Start a run that is killed as it syncs a file of its second checkpoint or a later one."""

    def run() -> None:
        calls = 0
        plain = committed._sync

        def counted(path: Path) -> None:
            nonlocal calls
            calls += 1
            if calls == sync:
                os.kill(os.getpid(), signal.SIGKILL)
            plain(path)

        committed._sync = counted
        main(words)

    os.waitpid(forked(run), 0)


@pytest.mark.parametrize(
    ("timed", "inside"), [(2, 2), pytest.param(15, 5, marks=pytest.mark.slow)], ids=["4 kills", "20 kills"]
)
def test_r1_r2_killed_at_random_moments(timed: int, inside: int, here: Path, llmft: Callable[..., Any]) -> None:
    rng = random.Random(0)
    start = time.perf_counter()
    assert llmft(*WORDS, "run.dir=whole")[0] == 0
    seconds = time.perf_counter() - start
    whole = outcome(here / "whole")
    lost = []
    for number in range(timed + inside):
        words = [*WORDS, f"run.dir=run{number}"]
        if number < timed:
            killed_after(rng.uniform(0, seconds / 2), words)
        else:
            killed_in_save(rng.randint(12, 60), words)
        folder = here / f"run{number}"
        if (folder / "README.md").is_file():
            continue  # it had finished before the kill
        used, _ = checkpoints.latest(folder / "checkpoints")
        assert used is not None
        newest = checkpoints.found(folder / "checkpoints")[0]
        lost.append(int(newest.name.rpartition("-")[2]) - int(used.name.rpartition("-")[2]))
        code, _, err = llmft(*words, "resume=true")
        assert code == 0, err
        for one, other in zip(outcome(folder), whole, strict=True):
            assert one == other
    assert len(lost) >= (timed + inside) / 2, "most were killed in time"
    assert max(lost) <= 4, "one save interval at most"
