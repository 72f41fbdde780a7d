"""Processes that are started together end together, and what ended them is said once. Here they train nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmft.commands import launch
from llmft.runs import environment
from llmft.runs.folder import Run
from llmft.schema.problem import Failure, Stopped, UserError
from tests.faults.test_kill import forked

# What a process does instead of training, once both are up; `other` is true in all but the first.
SCRIPT = """
import os, signal, sys, time
from llmft import worker
from llmft.schema.problem import Failure, Problem, Stopped, UserError
other = os.environ["RANK"] != "0"
def act(run):
    (run.folder / f"up{{other}}").touch()
    while len(list(run.folder.glob("up*"))) < 2:
        time.sleep(0.01)
    {}
worker.work = act
raise SystemExit(worker.main())
"""


@pytest.fixture
def run(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run that has begun; in the end none of its processes is left."""
    monkeypatch.setattr(launch, "GRACE", 1.0)
    run = Run(here / "run")
    run.write_text("config.yaml", "")
    run.write_json("manifest.json", {})
    with run.alone():
        yield run
    assert alive(run) == []


def alive(run: Run) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if str(run.folder) in (p.info["cmdline"] or ())]


def acting(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", SCRIPT.format(body.replace("\n", "\n    "))))


PEER_LOST = "time.sleep(0.3); raise RuntimeError('connection closed by peer')"
CASES = {
    "the user's mistake": ("raise UserError([Problem('a.csv', 'is gone')], 'the data')", UserError, "a.csv  is gone"),
    "a failure in all": ("raise Failure('the disk is full')", Failure, "the disk is full"),
    "a failure in one, on which the other waits": ("time.sleep(0 if other else 60); raise Failure('no')", Failure, "no"),
    "a failure in one, which the other sees": (f"if other: raise Failure('no')\n{PEER_LOST}", Failure, "no"),
    "a bug in one": (f"if other: 1 / 0\n{PEER_LOST}", Failure, "(?s)rank 1 raised an error.*ZeroDivisionError"),
    "one is killed": (f"if other: os.kill(os.getpid(), 9)\n{PEER_LOST}", Failure, "rank 1 was killed by SIGKILL"),
    "one leaves": (f"if other: os._exit(3)\n{PEER_LOST}", Failure, "rank 1 ended with exit code 3"),
    "a hang": ("if not other: run.note(why='no step for 4 s')\nos._exit(1)", Failure, "^no step for 4 s$"),
    "a full disk in one": (f"if other: raise OSError(28, 'No space left', 'a.json')\n{PEER_LOST}", Failure, "^a.json: No space left$"),
    "stopped": ("raise Stopped('SIGTERM after step 3')", Stopped, "SIGTERM after step 3"),
    "SIGTERM before training": ("os.kill(os.getppid(), 15); time.sleep(60)", SystemExit, "143"),
    "Ctrl-C before training": ("os.kill(os.getppid(), 2); time.sleep(60)", KeyboardInterrupt, None),
    "the second Ctrl-C": (
        "signal.signal(2, signal.SIG_IGN)\nfor _ in range(9): os.kill(os.getppid(), 2); time.sleep(0.2)\ntime.sleep(60)",
        KeyboardInterrupt,
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_ended_them_is_raised_once(
    case: str, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    body, error, text = CASES[case]
    acting(body, monkeypatch)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    start = time.monotonic()
    with pytest.raises(error, match=text):
        launch.launch(run, 2, 1)
    assert time.monotonic() - start < 20
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before
    assert capfd.readouterr() == ("", "")


def test_the_first_one_prints_and_they_know_their_place(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(environment._called, os.getpid(), time.time() - 2000)  # when the command began
    names = "(os.environ[k] for k in ('WORLD_SIZE', 'RANK', 'LOCAL_RANK', 'OMP_NUM_THREADS'))"
    acting(
        f"from llmft.runs import environment\nprint(*{names}, environment.seconds_since_start() // 1000)", monkeypatch
    )
    launch.launch(run, 2, 3)
    assert capfd.readouterr() == ("2 0 0 3 2.0\n", "")


def test_by_hand_it_says_how_it_is_started() -> None:
    done = subprocess.run([sys.executable, "-m", "llmft.worker", "run"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: torchrun")


@pytest.mark.parametrize("deaf", [False, True])
def test_a_parent_that_is_killed_leaves_no_orphan(deaf: bool, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that hears no signal, such as in a call that hangs; and until they are gone, the folder is held."""
    ignore = "worker.GRACE = 2; signal.signal(15, signal.SIG_IGN)\n" if deaf else ""
    acting(f"{ignore}(run.folder / f'ready{{other}}').touch()\ntime.sleep(60)", monkeypatch)
    own = Run(run.folder)
    (run.folder / ".lock").rename(run.folder / "old")  # the fixture holds that one

    def parent() -> None:
        with own.alone():
            launch.launch(own, 2, 1)

    child = forked(parent)
    start = time.monotonic()
    while len(list(run.folder.glob("ready*"))) < 2:
        assert time.monotonic() - start < 60, "they have not started"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if deaf:
        with pytest.raises(UserError, match="another process is at work"), own.alone():
            pass
    end = time.monotonic() + 10
    while alive(run) and time.monotonic() < end:
        time.sleep(0.05)
    assert alive(run) == []
    while True:  # a process that ends loses its name a moment before its locks
        try:
            with own.alone():
                break
        except UserError:
            assert time.monotonic() < end
            time.sleep(0.01)
