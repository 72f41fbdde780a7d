"""SIGTERM, SIGUSR1 and Ctrl-C are requests to stop; a second Ctrl-C stops at once."""

import signal
from types import FrameType
from typing import Any, Self

from llmft.schema.problem import Stopped

# Windows has no SIGUSR1, and SIGBREAK in its place.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGBREAK", "SIGINT") if hasattr(signal, name))


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
