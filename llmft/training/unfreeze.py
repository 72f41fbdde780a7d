"""Gradual unfreezing (Howard and Ruder 2018): layers begin to train epoch by epoch, from the top."""

from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmft.models.layers import parts, unfreezing


class GradualUnfreezing(TrainerCallback):
    """Lets each part of a model train from its epoch on. Until then it has no gradient, and no optimizer moves it."""

    def __init__(self, model: PreTrainedModel, layers: int) -> None:
        """`layers` more from the top in each epoch; what is frozen now stays so."""
        starts = unfreezing(model, layers)
        self.weights = [
            (parameter, starts[part.name])
            for part in parts(model)
            for parameter in part.parameters.values()
            if parameter.requires_grad
        ]

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        epoch = int(state.epoch or 0)
        for parameter, start in self.weights:
            parameter.requires_grad_(epoch >= start)
