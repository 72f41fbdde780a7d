"""The processes of a sweep's jobs: each has a log of its own, and all of them stop together."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol, Self

from llmft.runs.ending import SIGNALS, StopRequests
from llmft.sweeps.child import ChildJob

# Windows cannot fork. On macOS a forked process must not use the system's frameworks, such as Metal and Accelerate.
FORKS = hasattr(os, "fork") and sys.platform != "darwin"
STOP: int = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)
POLL = 0.01  # seconds between two looks at the children
CONTROL_C_EXIT = 0xC000013A  # the exit code that Windows gives a process that a Ctrl-Break ended


class Child(Protocol):
    """A process, as multiprocessing has it."""

    @property
    def exitcode(self) -> int | None:
        """None while it runs; negative for the signal that killed it."""

    def terminate(self) -> None:
        """Ask it to save and stop."""

    def kill(self) -> None:
        """End it at once."""

    def join(self) -> None:
        """Wait until it has ended."""


class Spawned:
    """A child that begins with nothing: a new Python, told by its standard input what to do."""

    def __init__(self, log: IO[str], job: ChildJob) -> None:
        # It leaves the terminal's group: Ctrl-C is for the parent, which passes it on.
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llmft.sweeps.child"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
            **apart,
        )
        assert self._process.stdin
        self._process.stdin.write(job.to_json() + "\n")
        self._process.stdin.flush()  # and it stays open: its end means that the parent is gone

    @property
    def exitcode(self) -> int | None:
        code = self._process.poll()
        return -signal.SIGTERM if code == CONTROL_C_EXIT else code

    def terminate(self) -> None:
        # Popen.terminate would end a process of Windows before it has saved.
        self._process.send_signal(STOP)

    def kill(self) -> None:
        self._process.kill()

    def join(self) -> None:
        self._process.wait()
        assert self._process.stdin
        self._process.stdin.close()


class Children(StopRequests):
    """While it is entered, a signal is passed on to the children; none outlives it.

    A forked child has at once what the parent has imported and read, and shares its memory. So the parent must not have
    computed anything on several threads (libgomp hangs in a forked child then), nor have started CUDA.
    """

    def __init__(self, fork: bool = True) -> None:
        """Take whether children may be forked, where the system can."""
        super().__init__()
        self.forks = FORKS and fork
        self.running: dict[Child, Any] = {}

    def start(self, key: Any, log: Path, job: ChildJob) -> None:
        """Start a child that does `job` and exits with what it returns; what it prints is appended to `log`."""
        if self.forks:
            child = multiprocessing.get_context("fork").Process(target=self._live, args=(os.getpid(), log, job))
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a signal between fork and list would miss the child
            child.start()
            self.running[child] = key
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        else:
            with log.open("a", encoding="utf-8") as stream:
                spawned = Spawned(stream, job)
            self.running[spawned] = key
            if self.noticed:  # while it started
                spawned.terminate()

    def ended(self) -> list[tuple[Any, int]]:
        """Wait until a child has ended: keys and exit codes, negative for the number of a signal that killed it."""
        while self.running:
            if over := [child for child in self.running if child.exitcode is not None]:
                for child in over:
                    child.join()
                return [(self.running.pop(child), int(child.exitcode or 0)) for child in over]
            time.sleep(POLL)
        return []

    def _live(self, parent: int, log: Path, job: ChildJob) -> None:
        super().__exit__()
        os.setpgrp()  # Ctrl-C in the terminal is for the parent, which passes it on
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        stream = log.open("a", encoding="utf-8", buffering=1)
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = stream
        threading.Thread(target=_stop_without, args=(parent,), daemon=True).start()
        sys.exit(job())

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
    """Stop this forked process, as SIGTERM does, once its parent is gone: kill -9 leaves nobody to pass a signal on."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
