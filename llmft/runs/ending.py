"""How a command is asked to stop and how it ends: signals, the exit code, and its last words where it did not go well.

SIGTERM, SIGUSR1 and Ctrl-C are requests to stop; a second Ctrl-C stops at once.
"""

import errno
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from llmft.schema.problem import Failure, Stopped, UserError

DONE, FAILED, WRONG_INPUT, STOPPED, INTERRUPTED = 0, 1, 2, 75, 130
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}
# Windows has no SIGUSR1, and SIGBREAK in its place.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGBREAK", "SIGINT") if hasattr(signal, name))


def ending(work: Callable[[], object], facts: dict[str, Any] | None = None, unread: int = DONE) -> int:
    """Do `work`, and say on stderr why if it could not be done.

    Args:
        facts: takes what a program needs to know of an error: `error`, a sentence, and `problems` of the user's input.
        unread: the exit code where nobody reads standard output any more, as in `llmft ... | head`.

    Returns:
        0 done, 1 failed, 2 the user's input is wrong, 75 stopped by a signal with a checkpoint, 130 without one.
    """
    facts = {} if facts is None else facts
    try:
        work()
    except UserError as error:
        keys = ("key", "what", "where", "hint")
        facts["problems"] = [{key: getattr(problem, key) for key in keys} for problem in error.problems]
        facts["error"] = str(error)
        columns = max(shutil.get_terminal_size().columns, 60)
        print(f"error: {error.on_terminal(columns) if sys.stderr.isatty() else error}", file=sys.stderr)
        return WRONG_INPUT
    except Failure as failure:
        return _ended(facts, "failed", str(failure), FAILED)
    except Stopped as stop:
        return _ended(facts, "stopped", str(stop), STOPPED)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  what Python flushes at its end goes nowhere
        return unread
    except KeyboardInterrupt:
        facts["error"] = "interrupted"
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if not (full := of_the_disk(error)):
            raise
        return _ended(facts, "failed", str(full), FAILED)
    return DONE


def _ended(facts: dict[str, Any], how: str, why: str, code: int) -> int:
    facts["error"] = why
    print(f"{how}: {why}", file=sys.stderr)
    return code


def of_the_disk(error: Exception) -> Failure | None:
    """What a full, broken or read-only disk says, `FILE: No space left on device`; None for our own mistakes."""
    if isinstance(error, OSError):
        number, words = error.errno, f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:  # safetensors and tokenizers have errors of their own, which end as those of Rust do
        found = re.search(r"\(os error (\d+)\)$", str(error))
        number, words = int(found[1]) if found else None, str(error)
    return Failure(words) if number in OF_THE_DISK else None


def name_of(number: int) -> str | None:
    """Such as `SIGTERM`; None for 0."""
    return signal.Signals(number).name if number else None


class StopRequests:
    """While it is entered, a signal is noted and the work goes on: whoever does it looks at `received`."""

    def __init__(self) -> None:
        self.noticed = 0
        """The number of the last signal that came to this process."""
        self._before: dict[signal.Signals, Any] = {}

    @property
    def received(self) -> str | None:
        """The name of the signal to stop by."""
        return name_of(self.noticed)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == self.noticed == signal.SIGINT:
            raise KeyboardInterrupt
        self.noticed = number


class Interrupting(StopRequests):
    """While it is entered, every signal is a Ctrl-C: what was half written is taken away, as after any error."""

    def _receive(self, number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt


class StopAtOnce(StopRequests):
    """While it is entered, a signal raises Stopped: all that must not be lost is saved already."""

    def __init__(self, again: str) -> None:
        """`again` is the command that goes on."""
        super().__init__()
        self.again = again

    def _receive(self, number: int, frame: FrameType | None) -> None:
        raise Stopped(f"{name_of(number)} after training, which is saved. Go on with: {self.again}")
