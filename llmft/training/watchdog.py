"""A step that never ends: the stacks of all threads are written down, and the run ends instead of waiting for ever."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import psutil
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmft.runs.folder import Run
from llmft.training import processes


class Watchdog(TrainerCallback):
    """While it is entered, a step of more than `seconds` ends the process with exit code 1."""

    def __init__(self, run: Run, seconds: float, resumed: bool) -> None:
        self.run = run
        self.seconds = seconds
        self.step = 0
        self.last = time.monotonic()
        self.paused = resumed  # until the first step is done: a stream reads what was trained on once more
        self.over = threading.Event()

    def __enter__(self) -> Self:
        self.last = time.monotonic()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Evaluation and saving take what they take."""
        self.paused = True
        try:
            yield
        finally:
            self.last, self.paused = time.monotonic(), False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.last, self.step, self.paused = time.monotonic(), state.global_step, False

    def _watch(self) -> None:
        while not self.over.wait(min(1.0, self.seconds / 4)):
            if not self.paused and time.monotonic() - self.last > self.seconds:
                self._end()

    def _end(self) -> None:
        why = f"no step for {self.seconds:g} s, after step {self.step}"
        stacks = self.run.folder / f"stacks_{processes.number()}.txt"
        print(
            f"failed: {why}. {stacks} says where each thread was. "
            "The last checkpoint is kept; if steps take so long, raise trainer.step_timeout.",
            file=sys.stderr,
            flush=True,
        )
        try:
            with stacks.open("w", encoding="utf-8") as stream:
                faulthandler.dump_traceback(stream, all_threads=True)
            self.run.note(status="failed", why=why)
            for child in psutil.Process().children(recursive=True):
                child.kill()  # such as a loader's worker that hangs, and would outlive us
        finally:
            os._exit(1)  # the main thread can't be asked
