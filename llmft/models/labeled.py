"""Computes logits only for tokens that have a label, not for prompts, padding, or words that are not masked.

The positions are selected just before the output embeddings, the largest matrix product of a small model, so all else
that the head does (BERT's transformation, T5's scaling) stays the model's own. Their logits are computed CHUNK at a
time, and again in the backward pass: with a vocabulary of 150,000, the logits of one batch would take more memory than
all weights of a small model.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from llmft.models.adapters import unwrap
from llmft.schema.tasks import IGNORED

CHUNK = 2**24  # logits in memory at once: 64 MB of float32

Layer = Callable[[torch.Tensor], torch.Tensor]
_plain: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


def labeled_logits(model: Any, inputs: dict[str, torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
    """The logits of the `wanted` positions, (positions, vocabulary), in the order of rows and of positions in them."""
    logits: torch.Tensor = labeled_output(model, inputs, wanted).logits
    return logits


def labeled_output(model: Any, inputs: dict[str, torch.Tensor], wanted: torch.Tensor) -> Any:
    """The model's output with the logits of some positions only.

    Args:
        inputs: the model's inputs, without labels.
        wanted: (B, T) bool, true for each position whose logits are wanted.

    Returns:
        transformers' output, whose logits are (positions, vocabulary), in the order of rows and of positions in them.
    """
    return _run(model, inputs, lambda layer, hidden: layer(hidden[wanted]))


def token_losses(model: Any, batch: dict[str, torch.Tensor], shift: bool, smoothing: float = 0.0) -> torch.Tensor:
    """The cross entropy of each token that has a label, in nats.

    Args:
        batch: the model's inputs, and `labels` (B, T), IGNORED where there is no loss.
        shift: whether a position predicts the next token, as in a causal language model, or its own.
        smoothing: the share of a label's probability that is spread over the vocabulary (Szegedy et al. 2016).

    Returns:
        (tokens,) float32, in the order of rows and of positions in them.
    """
    labels = batch["labels"]
    if shift:
        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    wanted = labels != IGNORED
    targets = labels[wanted]
    inputs, own = _inputs(model, batch), _own(model)
    size = max(1, CHUNK // own.config.get_text_config().vocab_size)
    if _is_plain(model, inputs) and len(targets) > size:
        found = _run(model, inputs, lambda layer, hidden: _in_chunks(layer, hidden[wanted], targets, size, smoothing))
        losses: torch.Tensor = found.logits.squeeze(1)
        return losses
    return _losses(labeled_logits(model, inputs, wanted), targets, smoothing)


def token_loss(model: Any, batch: dict[str, torch.Tensor], shift: bool, smoothing: float = 0.0) -> torch.Tensor:
    """The mean of `token_losses`; 0 if no token has a label."""
    return mean_loss(token_losses(model, batch, shift, smoothing))


def mean_loss(losses: torch.Tensor) -> torch.Tensor:
    """The mean of losses; 0 if there are none."""
    # torch's mean of nothing is NaN. The sum is 0 with a gradient of 0, which ddp needs from every process.
    return losses.mean() if len(losses) else losses.sum()


def count_labels(batch: dict[str, torch.Tensor], shift: bool) -> int:
    """The number of tokens that have a label: what `token_loss` is a mean over."""
    labels = batch["labels"][:, 1:] if shift else batch["labels"]
    return int((labels != IGNORED).sum())


def row_scores(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The losses of each row, for a model whose positions predict their own label.

    Returns:
        (B, 3) float64: the sum of cross entropies in nats, the number of labels, and how many were predicted.
    """
    labels = batch["labels"]
    wanted = labels != IGNORED
    logits = labeled_logits(model, _inputs(model, batch), wanted).float()
    return sums_by_row(logits, labels, wanted)


def sums_by_row(logits: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """`row_scores` of given logits (positions, vocabulary) for `labels` (B, T) at the positions `wanted` (B, T)."""
    nats = functional.cross_entropy(logits, labels[wanted], reduction="none")
    right = logits.argmax(-1) == labels[wanted]
    device = "cpu" if logits.device.type == "mps" else logits.device  # Metal has no float64
    each = torch.stack([nats, torch.ones_like(nats), right.float()], dim=1).to(device).double()
    rows = wanted.nonzero()[:, 0].to(device)
    return torch.zeros(len(labels), 3, dtype=torch.float64, device=device).index_add(0, rows, each)


def _inputs(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's inputs without labels. An encoder-decoder gets them as the input of its decoder."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    config = _own(model).config
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = _read_by_a_decoder(batch["labels"], config)
    return inputs


def _read_by_a_decoder(labels: torch.Tensor, config: Any) -> torch.Tensor:
    """The decoder's input (B, T): labels shifted right by one, after the token that `generate` starts with.

    Not the model's own `prepare_decoder_input_ids_from_labels`: M2M-100 has none, and mBART's starts with the last
    label, unlike `generate`, so a model from scratch would not generate what it learned.
    """
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    read = functional.pad(labels[:, :-1], (1, 0), value=start)
    return read.masked_fill(read == IGNORED, config.pad_token_id)


def _own(model: Any) -> Any:
    """The model of transformers inside the wrappers of ddp and peft."""
    return unwrap(getattr(model, "module", model))


def _losses(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    return functional.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)


def _in_chunks(layer: Layer, hidden: torch.Tensor, targets: torch.Tensor, size: int, smoothing: float) -> torch.Tensor:
    """The losses (tokens, 1) of hidden vectors (tokens, H), with the logits of `size` tokens in memory at once."""

    def losses(some: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return _losses(layer(some), wanted, smoothing)

    if torch.is_grad_enabled():
        # The layer draws nothing at random, and restoring the random state would cost more than computing again.
        losses = partial(checkpoint, losses, use_reentrant=False, preserve_rng_state=False)
    parts = zip(hidden.split(size), targets.split(size), strict=True)
    return torch.cat([losses(*part) for part in parts]).unsqueeze(1)


def _run(model: Any, inputs: dict[str, torch.Tensor], last: Callable[[Layer, torch.Tensor], torch.Tensor]) -> Any:
    """The model's output, with `last(output_embeddings, hidden)` in place of its output embeddings.

    So `last` runs inside the model's forward, where autocast is on and FSDP has gathered the weights.
    """
    own = _own(model)
    embeddings = own.get_output_embeddings()
    layer, replaced = embeddings.forward, vars(embeddings).get("forward")
    embeddings.forward = partial(last, layer)
    # Training does not need the cache of keys and values, and with it transformers does not detect packed sequences.
    uncached = {"use_cache": False} if "use_cache" in inspect.signature(type(own).forward).parameters else {}
    try:
        return model(**inputs, **uncached)
    finally:
        del embeddings.forward
        if replaced:
            embeddings.forward = replaced


def _is_plain(model: Any, inputs: dict[str, torch.Tensor]) -> bool:
    """Whether the output embeddings return the final logits. Gemma 2 caps them afterwards, and Cohere scales them.

    Tried once per model, on one position of one row. All processes of a run do so together, in their first batch.
    """
    own = _own(model)
    if own not in _plain:
        seen: list[torch.Tensor] = []

        def one(layer: Layer, hidden: torch.Tensor) -> torch.Tensor:
            seen.append(layer(hidden.flatten(0, -2)[:1]))
            return seen[0]

        with torch.no_grad(), torch.random.fork_rng():
            logits = _run(model, {key: value[:1] for key, value in inputs.items()}, one).logits
        _plain[own] = torch.equal(logits.float(), seen[0].float())
    return _plain[own]
