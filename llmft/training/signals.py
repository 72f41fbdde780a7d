"""A signal makes the Trainer save a checkpoint at the end of its step, and stop."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmft.runs.signals import StopRequests, name_of
from llmft.training import processes


class StopSignals(StopRequests, TrainerCallback):
    """While it is entered, all processes of a run stop at the same step once one of them got a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.agreed = 0

    @property
    def received(self) -> str | None:
        """The signal that all processes stop by."""
        return name_of(self.agreed)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # It reaches one process after the other, and one that stopped a step early would leave the others waiting.
        self.agreed = processes.largest(self.noticed)
        if self.received and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
