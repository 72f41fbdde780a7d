"""Several processes for one run: started, watched, told of signals, and ended together.

torchrun turns every exit code into 1, and dies of SIGUSR1 with its processes left behind. So they are started here, as
it would start them: what each needs to find the others stands in its environment.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from llmft.runs.ending import StopRequests
from llmft.runs.environment import STARTED, seconds_since_start
from llmft.runs.folder import Run
from llmft.schema.problem import Failure

COMMAND = (sys.executable, "-m", "llmft.worker")
CHANNEL = "LLMFT_CHANNEL"  # the descriptor by which a process says what went wrong, and sees that its parent is gone
GRACE = 10.0  # seconds that the others have to end by themselves after one has failed
Report = tuple[float, BaseException | str]
"""When a process failed, and what it raised: an error for the user, or the text of a traceback."""


@dataclass
class Worker:
    """One of the processes."""

    process: subprocess.Popen[bytes]
    channel: Connection
    report: Report | None = None

    def failed(self) -> bool:
        """Whether it has said so, or ended otherwise than well."""
        try:
            if self.report is None and self.channel.poll():
                self.report = self.channel.recv()
        except (EOFError, OSError):  # it has ended
            pass
        return self.report is not None or self.process.poll() not in (None, 0)


def launch(run: Run, count: int, threads: int) -> None:
    """Work on `run` in `count` processes of so many threads, and wait for the last of them.

    Raises:
        UserError, Failure, Stopped, KeyboardInterrupt: what the process that failed first has raised.
        Failure: if one raised anything else, or was killed.
        SystemExit: if a signal ended them before they could save.
    """
    sys.stdout.flush()  # they write to the same place
    workers: list[Worker] = []
    try:
        port = _free_port()
        for number in range(count):
            workers.append(_start(run, number, count, threads, port))
        with ForwardedSignals(workers) as signals:
            _wait(workers)
            _raise_first(run, workers, signals.noticed)
    finally:
        for worker in workers:
            _kill(worker.process)
            worker.channel.close()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _start(run: Run, number: int, count: int, threads: int, port: int) -> Worker:
    ours, theirs = Pipe()
    place: dict[str, Any] = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": threads, CHANNEL: theirs.fileno()}
    place |= {STARTED: time.time() - seconds_since_start()}
    # A warning from each that it looks for parameters without a gradient; some models have them.
    place |= {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    with theirs:
        process = subprocess.Popen(
            [*COMMAND, str(run.folder)],
            env=os.environ | {key: str(value) for key, value in place.items()},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *([] if run.lock is None else [run.lock])],
            start_new_session=True,  # a terminal sends Ctrl-C to its whole group, and they would get it twice
        )
    return Worker(process, ours)


class ForwardedSignals(StopRequests):
    """While it is entered, signals go to the processes, and the second Ctrl-C is an interrupt here."""

    def __init__(self, workers: list[Worker]) -> None:
        super().__init__()
        self.workers = workers

    def _receive(self, number: int, frame: FrameType | None) -> None:
        super()._receive(number, frame)
        for worker in self.workers:
            worker.process.send_signal(number)


def _wait(workers: list[Worker]) -> None:
    """Wait until all have ended, or for GRACE seconds after one has failed."""
    end = math.inf
    while any(worker.process.poll() is None for worker in workers) and time.monotonic() < end:
        if end == math.inf and any(worker.failed() for worker in workers):
            end = time.monotonic() + GRACE
        time.sleep(0.05)


def _raise_first(run: Run, workers: list[Worker], signal_sent: int) -> None:
    """Raise what ended the run: the death of a process that said nothing, or else the report that came first."""
    failed = [number for number, worker in enumerate(workers) if worker.failed()]
    for number in failed:
        worker = workers[number]
        code = worker.process.poll()
        if worker.report is None and code is not None:
            if -code == signal_sent:
                raise KeyboardInterrupt if -code == signal.SIGINT else SystemExit(128 - code)
            if why := Run.open(run.folder).manifest.get("why"):  # its watchdog could only leave a note
                raise Failure(why)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            hint = "; the system does that where memory runs out" if -code == signal.SIGKILL else ""
            raise Failure(f"rank {number} {how}{hint}")
    reports = [(report, number) for number in failed if (report := workers[number].report)]
    if reports:
        (_, error), number = min(reports, key=lambda entry: entry[0][0])
        raise error if isinstance(error, BaseException) else Failure(f"rank {number} raised an error\n{error}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, such as `trainer.workers`; nothing where it has ended well."""
    if process.poll() != 0:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
