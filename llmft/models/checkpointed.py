"""Layers that are computed once more in the backward pass: `trainer.gradient_checkpointing`."""

from transformers import PreTrainedModel

from llmft.schema.problem import Problem, UserError


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Let `model` keep only what goes into each layer.

    Raises:
        UserError: for a model that can't.
    """
    if not model.supports_gradient_checkpointing:
        what = f"{type(model).__name__} has no layers that could be computed again"
        raise UserError(Problem("trainer.gradient_checkpointing", what))
    # Not re-entrant: the older way wants inputs with a gradient, which embeddings that do not train don't give.
    model.gradient_checkpointing_enable({"use_reentrant": False})
