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
        self.within_epoch = False

    @property
    def received(self) -> str | None:
        """The signal that all processes stop by."""
        return name_of(self.agreed)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # It reaches one process after the other, and one that stopped a step early would leave the others waiting.
        self.agreed = processes.largest(self.noticed)
        if self.received and state.global_step < state.max_steps:
            control.should_training_stop = True
            self.within_epoch = not float(state.epoch or 0).is_integer()
            # What is due at the end of an epoch, its score and then its checkpoint, comes by itself there.
            control.should_save |= self.within_epoch or args.save_strategy != "epoch"

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # transformers takes a stop for the end of the epoch: a score that an unstopped run does not have.
        if self.received and self.within_epoch:
            control.should_evaluate = control.should_save = False
