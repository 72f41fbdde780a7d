"""Two processes that train one run: the same result as one, and faults that end both. tests/commands has the launcher."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from accelerate.state import AcceleratorState

from llmft import worker
from llmft.cli import main
from llmft.commands import launch
from llmft.runs import checkpoints
from tests.faults.test_kill import forked
from tests.faults.test_resume import outcome

Run = Callable[..., tuple[int, str, str]]
SMOKE = ("finetune", "+recipe=bert_textcls", "smoke=true", "trainer.save_every=2", "trainer.eval_every=2")
TWO = (*SMOKE, "hardware.processes=2", "trainer.batch_size=4")

# A worker that does something at the end of a step.
SCRIPT = """
import os, sys, time
from llmft import worker
from llmft.data import committed
from llmft.training.callbacks import Progress
plain = Progress.on_step_end
rank = int(os.environ["RANK"])
def act():
    {act}
def on_step_end(self, args, state, control, **kwargs):
    plain(self, args, state, control, **kwargs)
    if state.global_step == {step}:
        act()
Progress.on_step_end = on_step_end
raise SystemExit(worker.main())
"""


@pytest.fixture
def llmft(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command: (exit code, what its processes printed, what they said in error)."""

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(list(words))
        out, err = capfd.readouterr()
        return code, out, err

    return run


class Warm:
    """In the place of `subprocess.Popen`: a fork of this process. A new Python takes 7 s to import what training needs."""

    def __init__(self, words: list[str], env: dict[str, str], **_: Any) -> None:
        self.code: int | None = None
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            code = 1
            try:
                os.setsid()
                os.environ.clear()
                os.environ.update(env)
                sys.argv = words[-2:]
                AcceleratorState._reset_state(reset_partial_state=True)  # of runs before, in one process
                code = worker.main()
                sys.stdout.flush()
            finally:
                os._exit(code)
        self.pid = child

    def poll(self) -> int | None:
        if self.code is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.code = os.waitstatus_to_exitcode(ended[1])
        return self.code

    def wait(self) -> None:
        while self.poll() is None:
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a run are forks of this one; the slow tests and test_launch.py have new ones."""
    monkeypatch.setattr(launch, "subprocess", SimpleNamespace(Popen=Warm, DEVNULL=subprocess.DEVNULL))


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """Do something in every process at the end of a training step; a step of -1 never comes."""

    def plan(step: int, act: str) -> None:
        monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", SCRIPT.format(step=step, act=act)))

    return plan


def numbers(facts: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in facts.items() if isinstance(value, int | float)}


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_two_processes_give_what_one_gives(llmft: Run, here: Path, warm: None) -> None:
    """Half the rows in each of two is the same step; SGD, since Adam would hide a factor in the gradient."""
    plain = (
        "model.config.hidden_dropout_prob=0",
        "model.config.attention_probs_dropout_prob=0",
        "optimizer=sgd",
        "optimizer.lr=0.1",
        "hardware.precision=fp32",
        "trainer.eval_batch_size=4",
    )
    assert llmft(*SMOKE, *plain, "run.dir=one")[0] == 0
    code, out, err = llmft(*TWO, *plain, "run.dir=two")
    assert code == 0, err
    # What torch warns of in forks, which do not read TORCH_CPP_LOG_LEVEL.
    assert [line for line in err.splitlines() if "find_unused_parameters" not in line] == []
    assert "8 steps of 2 x 4 rows" in out
    assert "cpu, 2 processes of 1 thread" in out
    assert out.count("step 3/8") == out.count("report ") == 1
    (_, steps_one, scores_one), (_, steps_two, scores_two) = outcome(here / "one"), outcome(here / "two")
    assert len(steps_one) == len(steps_two) == 12
    for one, two in zip([*steps_one, *scores_one.values()], [*steps_two, *scores_two.values()], strict=True):
        assert numbers(two) == pytest.approx(numbers(one), abs=1e-5)
    for split in ("validation", "test"):
        one, two = (
            [json.loads(line) for line in (here / name / f"predictions/{split}.jsonl").read_text().splitlines()]
            for name in ("one", "two")
        )
        assert [row["id"] for row in one] == [row["id"] for row in two]
        for a, b in zip(one, two, strict=True):
            assert b["scores"] == pytest.approx(a["scores"], abs=1e-5)
    # Words are weighed by both processes together.
    pages = [(here / name / "report.html").read_text() for name in ("one", "two")]
    assert [page.count("what speaks for") for page in pages] == [pages[0].count("what speaks for")] * 2
    assert "what speaks for" in pages[0]
    files = [sorted(str(file.relative_to(here / name)) for file in (here / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    manifest = json.loads((here / "two/manifest.json").read_text())
    assert manifest["status"] == "done"
    assert manifest["weights"].keys() == {"model.safetensors"}
    train = json.loads((here / "two/metrics.json").read_text())["train"]
    assert train["samples_per_second"] == pytest.approx(64 / train["seconds"])
    assert train["total_seconds"] > train["seconds"]
    assert children() == []
    # Scored again, by the one process of `llmft eval`.
    assert llmft("eval", "two", "run.dir=again")[0] == 0
    again = json.loads((here / "again/metrics.json").read_text())
    assert numbers(again["test"]) == pytest.approx(numbers(scores_two["test"]), abs=1e-6)


@pytest.mark.slow  # 25 s
def test_two_processes_give_what_one_gives_of_raw_text(llmft: Run, here: Path) -> None:
    """Each has its own number of hidden tokens, and the loss is a mean over those of both."""
    words = (
        "pretrain",
        "+recipe=bert_mlm",
        "smoke=true",
        "optimizer=sgd",
        "optimizer.lr=0.1",
        "hardware.precision=fp32",
    )
    words = (*words, "trainer.max_steps=5")  # the sixth batch is half a batch, which two processes fill up
    for name, more in {"one": (), "two": ("hardware.processes=2", "trainer.batch_size=4")}.items():
        assert llmft(*words, *more, f"run.dir={name}")[0] == 0
    (_, steps_one, scores_one), (_, steps_two, scores_two) = outcome(here / "one"), outcome(here / "two")
    assert len(steps_one) == len(steps_two)
    for one, two in zip([*steps_one, *scores_one.values()], [*steps_two, *scores_two.values()], strict=True):
        assert numbers(two) == pytest.approx(numbers(one), abs=1e-5)


@pytest.mark.slow  # 80 s of processor time; tests of one process hold the same
def test_stopped_and_resumed_it_is_the_same_bit_for_bit(llmft: Run, here: Path, at_step: Any) -> None:
    """In the second epoch, where the order of rows is a new one. The signal comes to one process, and both stop."""
    words = (*TWO, "dataset.max_rows=128", "trainer.max_steps=40", "model.config.hidden_dropout_prob=0.2")
    words = (*words, "trainer.save_every=20", "trainer.eval_every=20")
    assert llmft(*words, "run.dir=whole")[0] == 0
    at_step(21, "rank and os.kill(os.getpid(), 15)")
    code, _, err = llmft(*words, "run.dir=run")
    assert code == 75
    assert err.count("SIGTERM after step 21") == err.count("stopped") == 1
    assert json.loads((here / "run/manifest.json").read_text())["status"] == "stopped"
    assert checkpoints.latest(here / "run/checkpoints") == (here / "run/checkpoints/checkpoint-21", [])
    assert children() == []
    at_step(-1, "pass")
    again = err.partition("Go on with: llmft ")[2].split()
    code, _, err = llmft(*again)
    assert code == 0, err
    assert outcome(here / "run") == outcome(here / "whole")


FULL = "committed._sync = lambda path: (_ for _ in ()).throw(OSError(28, 'No space left on device'))"
FAULTS = {
    "a full disk": (f"if not rank: {FULL}", "the checkpoint of step 4 cannot be written"),
    "a process is killed": ("if rank: os.kill(os.getpid(), 9)", "rank 1 was killed by SIGKILL"),
}


@pytest.mark.slow  # 10 s for each start on two cores, as much as this file may take; test_launch.py has the quick ones
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_ends_both_and_is_said_once(fault: str, llmft: Run, here: Path, at_step: Any) -> None:
    act, text = FAULTS[fault]
    at_step(3, act)
    code, _, err = llmft(*TWO, "run.dir=run")
    assert code == 1
    assert err.startswith(f"failed: {text}")
    assert len(err.splitlines()) == 1
    assert json.loads((here / "run/manifest.json").read_text())["status"] == "failed"
    assert checkpoints.latest(here / "run/checkpoints")[0] == here / "run/checkpoints/checkpoint-2"
    assert children() == []


@pytest.mark.slow
def test_where_the_command_is_killed_the_processes_save_and_leave(llmft: Run, here: Path, at_step: Any) -> None:
    words = [*TWO, "trainer.max_steps=400", "trainer.save_every=1000", "trainer.eval_every=1000", "run.dir=run"]
    at_step(3, "open(f'up{rank}', 'w')")
    command = forked(lambda: main(words))
    while len(list(here.glob("up*"))) < 2:
        time.sleep(0.01)
    workers = psutil.Process(command).children()
    assert len(workers) == 2
    os.kill(command, signal.SIGKILL)
    os.waitpid(command, 0)
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    found, passed_over = checkpoints.latest(here / "run/checkpoints")
    assert found is not None
    assert passed_over == []
    assert llmft(*words, "resume=true", "trainer.max_steps=400")[0] == 0


@pytest.mark.slow
def test_torchrun_starts_them_too(llmft: Run, here: Path) -> None:
    assert llmft(*TWO, "run.dir=run")[0] == 0
    (here / "again").mkdir()
    for name in ("config.yaml", "manifest.json"):
        shutil.copy(here / "run" / name, here / "again" / name)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    done = subprocess.run([*torchrun, "2", "-m", "llmft.worker", "again"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 3/8") == 1
    assert outcome(here / "again") == outcome(here / "run")
    done = subprocess.run([*torchrun, "1", "-m", "llmft.worker", "again"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "hardware.processes  must be 1, the number of processes that were started, got 2 in again" in done.stderr
    assert json.loads((here / "again/manifest.json").read_text())["status"] == "done"
