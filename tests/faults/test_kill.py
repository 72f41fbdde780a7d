"""kill -9 at any moment: what was committed is resumed, and the end is the same."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.cli import main
from llmft.data import committed
from llmft.runs import checkpoints
from llmft.runs.folder import Run
from tests.faults.test_resume import outcome

WORDS = [
    "finetune",
    "+recipe=tabular_mlp",
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


def killed_after(seconds: float, words: list[str]) -> int:
    """Start a run, and kill it so long after its first commit; its exit code."""
    folder = Path(words[-1].partition("=")[2])
    child = forked(lambda: main(words))
    while not list(folder.glob(f"checkpoints/*/{checkpoints.MANIFEST}")):
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_in_save(sync: int, words: list[str]) -> int:
    """Start a run that is killed as it syncs a file of its second checkpoint or a later one; its exit code."""

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

    return os.waitstatus_to_exitcode(os.waitpid(forked(run), 0)[1])


@pytest.mark.parametrize(
    ("timed", "inside"), [(2, 2), pytest.param(15, 5, marks=pytest.mark.slow)], ids=["4 kills", "20 kills"]
)
def test_r1_r2_killed_at_random_moments(timed: int, inside: int, here: Path, llmft: Callable[..., Any]) -> None:
    rng = random.Random(0)
    assert llmft(*WORDS, "run.dir=whole")[0] == 0
    whole = outcome(here / "whole")
    train = Run(here / "whole").metrics()["train"]
    seconds = sum(train[f"{part}seconds"] for part in ("", "evaluation_", "saving_"))
    lost: list[int] = []
    late = 0
    while len(lost) < timed + inside:
        run = Run(here / f"run{len(lost) + late}")
        words = [*WORDS, f"run.dir={run.folder.name}"]
        if len(lost) < timed:
            # A machine that is faster now than it was in the whole run finishes before the kill: half the wait then.
            killed = killed_after(rng.uniform(0, 0.8 * seconds / 2**late), words)
            if Run.open(run.folder).manifest["status"] == "done":
                late += 1
                assert late < 10, "a kill never came in time"
                continue
        else:
            killed = killed_in_save(rng.randint(12, 60), words)
        assert killed == -signal.SIGKILL
        last = max(event["step"] for event in run.events())
        code, out, err = llmft(*words, "resume=true")
        assert code == 0, err
        (step,) = re.findall(r"resumes   after step (\d+)", out)
        lost.append(last - int(step))
        assert outcome(run.folder) == whole
    assert max(lost) <= 4, "one save interval at most"
