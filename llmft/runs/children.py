"""Work in processes forked from this one: each with a log of its own, all of them stopped together."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Self

from llmft.runs.signals import SIGNALS, StopRequests

FORK = multiprocessing.get_context("fork")


class Children(StopRequests):
    """While it is entered, a signal is passed on to the children; none outlives it.

    What the parent has imported and read the children have at once, and share. So the parent must not have computed
    anything on several threads (libgomp hangs in a forked child then), nor have touched CUDA.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running: dict[BaseProcess, Any] = {}

    def start(self, key: Any, log: Path, work: Callable[[], int]) -> None:
        """Fork a child that does `work` and exits with what it returns; what it prints is appended to `log`."""
        child = FORK.Process(target=self._live, args=(os.getpid(), log, work))
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a signal between fork and list would pass the child by
        child.start()
        self.running[child] = key
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def ended(self) -> list[tuple[Any, int]]:
        """Wait until a child has ended: keys and exit codes, negative for the number of a signal that killed it."""
        if self.running:
            multiprocessing.connection.wait([child.sentinel for child in self.running])
        over = [child for child in self.running if child.exitcode is not None]
        return [(self.running.pop(child), int(child.exitcode or 0)) for child in over]

    def _live(self, parent: int, log: Path, work: Callable[[], int]) -> None:
        super().__exit__()
        os.setpgrp()  # Ctrl-C in the terminal is for the parent, which passes it on
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        stream = log.open("a", encoding="utf-8", buffering=1)
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = stream
        threading.Thread(target=_stop_without, args=(parent,), daemon=True).start()
        sys.exit(work())

    def _receive(self, number: int, frame: FrameType | None) -> None:
        super()._receive(number, frame)
        for child in self.running:
            child.terminate()

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for child in self.running:
            child.kill()
        for child in self.running:
            child.join()
        super().__exit__(*error)


def _stop_without(parent: int) -> None:
    """Stop this process, as SIGTERM does, once its parent is gone: kill -9 leaves nobody to pass a signal on."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
