"""`python -m llmft.worker RUN`: one of several processes that train together, as the launcher or torchrun starts it.

It composes nothing: what to do stands in RUN/config.yaml, checked by the command that began the run.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from llmft.commands.launch import CHANNEL
from llmft.runs import checkpoints
from llmft.runs.ending import of_the_disk
from llmft.runs.folder import Run
from llmft.schema.problem import Failure, Problem, Stopped, UserError

GRACE = 60.0  # seconds to save and stop in, once the launcher is gone


def main() -> int:
    """Do this process's part of a run; its exit code."""
    if len(sys.argv) != 2 or "RANK" not in os.environ:
        print("usage: torchrun --nproc-per-node N -m llmft.worker RUN", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # before training, Ctrl-C ends it without a traceback from each
    channel = Connection(int(os.environ[CHANNEL])) if CHANNEL in os.environ else None
    if channel:
        threading.Thread(target=_leave_with_launcher, args=(channel,), daemon=True).start()
    first = os.environ["RANK"] == "0"
    try:
        run = Run.open(Path(sys.argv[1]), writes=first)
        if not channel:
            _check_count(run)
        with nullcontext() if first else _silence():
            if channel or not first:
                work(run)
            else:  # under torchrun nobody else holds the folder and keeps its manifest
                with run.alone():
                    with run.recorded(run.manifest | {"status": "running"}):
                        work(run)
                    if not run.config().trainer.keep_finished:
                        checkpoints.remove(run.folder)
    except (UserError, Failure, Stopped, BrokenPipeError) as error:
        return _report(channel, error)
    except Exception as error:
        return _report(channel, of_the_disk(error) or traceback.format_exc())
    return 0


def work(run: Run) -> None:
    """Prepare the data as the command did, meet the other processes, then train and score together."""
    from llmft.commands.session import Session
    from llmft.training import processes

    session = Session(run.config(), earlier=run)
    session.check()
    session.prepare()  # torchrun, or a file that has changed since the command read it
    session.build()
    session.run = run
    processes.init(session.hardware.device)
    session.work()
    processes.destroy()


def _check_count(run: Run) -> None:
    """Raise UserError if torchrun has started more or fewer processes than the run asks for."""
    if (wanted := run.config().hardware.processes) != (started := int(os.environ["WORLD_SIZE"])):
        raise UserError(
            Problem(
                "hardware.processes",
                f"must be {started}, the number of processes that were started, got {wanted} in {run.folder}",
            )
        )


def _leave_with_launcher(channel: Connection) -> None:
    """Save and stop once the launcher is gone, which says nothing before."""
    channel.poll(None)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


@contextmanager
def _silence() -> Iterator[None]:
    """Only the first process prints."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _report(channel: Connection | None, error: BaseException | str) -> int:
    """Say what went wrong: to the launcher, or on stderr where there is none."""
    if channel is None:
        print(error, file=sys.stderr)
    else:
        with suppress(BrokenPipeError):  # the launcher is gone
            channel.send((time.monotonic(), error))
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
