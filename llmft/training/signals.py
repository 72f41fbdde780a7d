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
        self.noticed: str | None = None
        """The last signal that came to this process."""
        self.received: str | None = None
        """The signal that all processes have agreed to stop by."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.noticed == "SIGINT":
            raise KeyboardInterrupt
        self.noticed = signal.Signals(number).name

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # It reaches the processes one after the other; one that stopped a step before the others would leave them waiting.
        self.received = next(filter(None, processes.gather(self.noticed)), None)
        if self.received and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
