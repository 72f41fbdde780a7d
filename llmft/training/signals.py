"""SIGTERM, SIGUSR1 and Ctrl-C ask a run to stop at its next step; the second Ctrl-C stops it at once."""

import signal
from types import FrameType
from typing import Any, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmft.training import processes

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopSignals(TrainerCallback):
    """While it is entered, a signal makes the Trainer save a checkpoint at the end of its step, and stop."""

    def __init__(self) -> None:
        self.noticed = 0
        """The last signal that came to this process."""
        self.received: str | None = None
        """The signal that all processes stop by."""
        self._before: dict[signal.Signals, Any] = {}

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

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # It reaches one process after the other, and one that stopped a step early would leave the others waiting.
        number = processes.largest(self.noticed)
        self.received = signal.Signals(number).name if number else None
        if self.received and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
