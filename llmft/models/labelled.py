"""Only the logits that a label needs: of a prompt, of padding and of words that are not masked, none is computed."""

from typing import Any

import torch
from torch.nn import functional

from llmft.models.adapters import within

IGNORED = -100  # the label of a token that is not trained on, as torch and transformers have it


def labelled_logits(model: Any, inputs: dict[str, torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
    """The logits of some places, (places, vocabulary); see `labelled_output`."""
    logits: torch.Tensor = labelled_output(model, inputs, wanted).logits
    return logits


def labelled_output(model: Any, inputs: dict[str, torch.Tensor], wanted: torch.Tensor) -> Any:
    """What the model puts out, with the logits of some places alone.

    The places are picked just before the output embeddings, which of a small model are the largest part of the work,
    so that whatever else the head does (BERT's transformation, T5's scaling) stays the model's own.

    Args:
        inputs: what the model takes, without labels.
        wanted: (B, T), true for each place whose logits are wanted.

    Returns:
        transformers' output; its logits over the vocabulary are (places, vocabulary), in the order of rows and places.
    """

    def pick(_: torch.nn.Module, hidden: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (hidden[0][wanted], *hidden[1:])

    hook = _own(model).get_output_embeddings().register_forward_pre_hook(pick)
    try:
        return model(**inputs)
    finally:
        hook.remove()


def token_loss(model: Any, batch: dict[str, torch.Tensor], shift: bool) -> torch.Tensor:
    """The mean cross entropy of the tokens that have a label.

    Args:
        batch: what the model takes, and `labels` (B, T), IGNORED where nothing is to be said.
        shift: whether a place says the next token, as in a causal language model, or its own.
    """
    labels = batch["labels"]
    if shift:
        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    wanted = labels != IGNORED
    return functional.cross_entropy(labelled_logits(model, _inputs(model, batch), wanted).float(), labels[wanted])


def row_scores(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the labels of each row cost, where a place says its own label.

    Returns:
        (B, 3), float64: the sum of their cross entropies in nats, how many they are, and how many were the likeliest.
    """
    labels = batch["labels"]
    wanted = labels != IGNORED
    logits = labelled_logits(model, _inputs(model, batch), wanted).float()
    return sums_by_row(logits, labels, wanted)


def sums_by_row(logits: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """`row_scores` of logits that are there: (places, vocabulary) of the places (B, T) that are `wanted`."""
    nats = functional.cross_entropy(logits, labels[wanted], reduction="none")
    right = logits.argmax(-1) == labels[wanted]
    each = torch.stack([nats.double(), torch.ones_like(nats).double(), right.double()], dim=1)
    rows = wanted.nonzero()[:, 0]
    return torch.zeros(len(labels), 3, dtype=torch.float64, device=labels.device).index_add(0, rows, each)


def _inputs(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the model takes but for labels, which a decoder reads in their place."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    if _own(model).config.is_encoder_decoder:
        inputs["decoder_input_ids"] = _own(model).prepare_decoder_input_ids_from_labels(batch["labels"])
    return inputs


def _own(model: Any) -> Any:
    """The model of transformers inside the wrappers of several processes and of peft."""
    return within(getattr(model, "module", model))


def count_labels(batch: dict[str, torch.Tensor], shift: bool) -> int:
    """How many tokens of a batch `token_loss` is a mean over."""
    labels = batch["labels"][:, 1:] if shift else batch["labels"]
    return int((labels != IGNORED).sum())
