"""A signal asks a run to stop at its next step."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmft.runs.signals import StopRequests


class StopSignals(StopRequests, TrainerCallback):
    """While it is entered, a signal makes the Trainer save a checkpoint at the end of its step, and stop."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.received and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
