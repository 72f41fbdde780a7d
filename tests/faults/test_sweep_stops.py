"""A sweep that is stopped or killed, or whose jobs are, goes on as if nothing had happened."""

import json
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmft.cli import main
from llmft.runs import checkpoints
from llmft.training.callbacks import Progress
from tests.faults.test_kill import forked
from tests.faults.test_resume import outcome

Run = Callable[..., tuple[int, str, str]]
WORDS = ("finetune", "-m", "+recipe=tabular_mlp", "smoke=true", "trainer.save_every=2", "trainer.eval_every=2")
SWEEP = (*WORDS, "seed=0,1,2", "run.dir=s")


@contextmanager
def after_third_step(job: str, act: Callable[[], None]) -> Iterator[None]:
    """Do something in the process of a job."""
    plain = Progress.on_step_end

    def on_step_end(self: Progress, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        plain(self, args, state, control, **kwargs)
        if self.run.folder.name == job and state.global_step == 3:
            act()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "on_step_end", on_step_end)
        yield


def to_parent(*signals: signal.Signals) -> Callable[[], None]:
    """Send signals to the sweep, a moment apart: two of a kind at once would be one."""

    def act() -> None:
        for number in signals:
            os.kill(os.getppid(), number)
            time.sleep(0.3)

    return act


def statuses(sweep: Path) -> list[str]:
    return [job["status"] for job in json.loads((sweep / "summary.json").read_text())["jobs"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The outcome of each job of a sweep that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole") / "s"
    assert main([*WORDS, "seed=0,1,2", f"run.dir={folder}"]) == 0
    return [outcome(folder / f"seed-{seed}") for seed in range(3)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_stops_and_starts_no_further_job(
    number: signal.Signals, whole: list[Any], llmft: Run, here: Path
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with after_third_step("seed-1", to_parent(number)):
        code, out, err = llmft(*SWEEP)
    assert code == 75
    assert f"stopped: {number.name}; what was done is saved." in err
    assert statuses(here / "s") == ["done", "stopped", "waiting"]
    assert not (here / "s/seed-2").exists()
    assert checkpoints.latest(here / "s/seed-1/checkpoints")[0] == here / "s/seed-1/checkpoints/checkpoint-3"
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == handlers
    if number != signal.SIGTERM:
        return
    # What it says to type goes on, and whatever the signal was, by the same words.
    words = shlex.split(err.strip().partition("Go on with: ")[2])
    code, out, err = llmft(*words[1:])
    assert code == 0, err
    assert "1 of them is finished already" in out
    assert "resumes   after step 3" in (here / "s/seed-1/log.txt").read_text()
    assert [outcome(here / f"s/seed-{seed}") for seed in range(3)] == whole


def test_the_second_ctrl_c_leaves_at_once(llmft: Run, here: Path) -> None:
    with after_third_step("seed-0", to_parent(signal.SIGINT, signal.SIGINT)):
        code, _, err = llmft(*SWEEP)
    assert (code, err.strip()) == (130, "interrupted")
    assert not psutil.Process().children()


def test_a_job_that_is_killed_is_reported_and_resumed(whole: list[Any], llmft: Run, here: Path) -> None:
    with after_third_step("seed-1", lambda: os.kill(os.getpid(), signal.SIGKILL)):
        code, out, err = llmft(*SWEEP)
    assert (code, err) == (1, "failed: 1 of 3 jobs: seed=1\n")
    assert "killed by SIGKILL (s/seed-1/log.txt)" in out
    assert statuses(here / "s") == ["done", "failed", "done"]
    assert llmft(*SWEEP)[0] == 0
    assert "resumes   after step 2" in (here / "s/seed-1/log.txt").read_text()
    assert [outcome(here / f"s/seed-{seed}") for seed in range(3)] == whole


def test_a_killed_sweep_leaves_no_orphan_and_goes_on(whole: list[Any], llmft: Run, here: Path) -> None:
    """kill -9 for the parent: its job saves and stops by itself, and holds the folder until then."""

    def wait_to_be_orphaned() -> None:
        (here / "job").write_text(str(os.getpid()))
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.01)
        time.sleep(2.5)  # the job looks for its parent every second

    with after_third_step("seed-0", wait_to_be_orphaned):
        parent = forked(lambda: main([*SWEEP]))
        while not (here / "job").is_file() or not (here / "job").read_text():
            time.sleep(0.01)
        job = int((here / "job").read_text())
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        code, _, err = llmft(*SWEEP)
        assert code == 2
        assert "another sweep is at work in s" in err
        while psutil.pid_exists(job) and psutil.Process(job).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
    assert json.loads((here / "s/seed-0/manifest.json").read_text())["status"] == "stopped"
    assert llmft(*SWEEP)[0] == 0
    assert "resumes   after step 3" in (here / "s/seed-0/log.txt").read_text()
    assert [outcome(here / f"s/seed-{seed}") for seed in range(3)] == whole
