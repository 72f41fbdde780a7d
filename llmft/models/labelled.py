"""Only the logits that a label needs: of a prompt, of padding and of words that are not masked, none is computed."""

from typing import Any

import torch
from torch.nn import functional

from llmft.models.adapters import within

IGNORED = -100  # the label of a token that is not trained on, as torch and transformers have it


def labelled_logits(model: Any, inputs: dict[str, torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
    """The logits of some places.

    The places are picked just before the output embeddings, which of a small model are the largest part of the work,
    so that whatever else the head does (BERT's transformation, T5's scaling) stays the model's own.

    Args:
        inputs: what the model takes, without labels.
        wanted: (B, T), true for each place whose logits are wanted.

    Returns:
        (places, vocabulary), in the order of rows and then of places.
    """

    def pick(_: torch.nn.Module, hidden: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (hidden[0][wanted], *hidden[1:])

    hook = _own(model).get_output_embeddings().register_forward_pre_hook(pick)
    try:
        logits: torch.Tensor = model(**inputs).logits
        return logits
    finally:
        hook.remove()


def token_losses(model: Any, batch: dict[str, torch.Tensor], shift: bool) -> torch.Tensor:
    """The cross entropy of each token that has a label, in the order of rows and then of places.

    Args:
        batch: what the model takes, and `labels` (B, T), IGNORED where nothing is to be said.
        shift: whether a place says the next token, as in a causal language model, or its own.
    """
    labels = batch["labels"]
    if shift:
        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    wanted = labels != IGNORED
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    if _own(model).config.is_encoder_decoder:
        inputs["decoder_input_ids"] = _own(model).prepare_decoder_input_ids_from_labels(batch["labels"])
    return functional.cross_entropy(labelled_logits(model, inputs, wanted).float(), labels[wanted], reduction="none")


def token_loss(model: Any, batch: dict[str, torch.Tensor], shift: bool) -> torch.Tensor:
    """The mean of `token_losses`."""
    return token_losses(model, batch, shift).mean()


def _own(model: Any) -> Any:
    """The model of transformers inside the wrappers of several processes and of peft."""
    return within(getattr(model, "module", model))


def count_labels(batch: dict[str, torch.Tensor], shift: bool) -> int:
    """How many tokens of a batch `token_loss` is a mean over."""
    labels = batch["labels"][:, 1:] if shift else batch["labels"]
    return int((labels != IGNORED).sum())
