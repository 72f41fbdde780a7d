"""Which weights stay as they are."""

from transformers import PreTrainedModel

from llmft.schema.problem import Problem, UserError


def freeze_encoder(model: PreTrainedModel) -> None:
    """Let only the head of a model train.

    Raises:
        UserError: for a model that is not an encoder with a head on it.
    """
    if model.base_model is model or not isinstance(model.base_model, PreTrainedModel):
        raise UserError(
            Problem("model.freeze", f"{type(model).__name__} has no encoder that could be told from its head")
        )
    model.base_model.requires_grad_(False)
