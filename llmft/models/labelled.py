"""Only the logits that a label needs: of a prompt, of padding and of words that are not masked, none is computed.

The places are picked just before the output embeddings, which of a small model are the largest part of the work, so
that whatever else the head does (BERT's transformation, T5's scaling) stays the model's own. Of the places, so many
at a time are turned into logits as CHUNK says, and in the backward pass once more: with a vocabulary of 150,000 the
logits of one batch would take more memory than all weights of a small model.
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

IGNORED = -100  # the label of a token that is not trained on, as torch and transformers have it
CHUNK = 2**24  # logits that are there at once: 64 MB of float32

Layer = Callable[[torch.Tensor], torch.Tensor]
_plain: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


def labelled_logits(model: Any, inputs: dict[str, torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
    """The logits of some places, all at once: (places, vocabulary), in the order of rows and then of places."""
    logits: torch.Tensor = labelled_output(model, inputs, wanted).logits
    return logits


def labelled_output(model: Any, inputs: dict[str, torch.Tensor], wanted: torch.Tensor) -> Any:
    """What the model puts out, with the logits of some places alone.

    Args:
        inputs: what the model takes, without labels.
        wanted: (B, T), true for each place whose logits are wanted.

    Returns:
        transformers' output; its logits over the vocabulary are (places, vocabulary), in the order of rows and places.
    """
    return _run(model, inputs, lambda layer, hidden: layer(hidden[wanted]))


def token_losses(model: Any, batch: dict[str, torch.Tensor], shift: bool, smoothing: float = 0.0) -> torch.Tensor:
    """The cross entropy of each token that has a label.

    Args:
        batch: what the model takes, and `labels` (B, T), IGNORED where nothing is to be said.
        shift: whether a place says the next token, as in a causal language model, or its own.
        smoothing: the share of a label that all tokens get alike (Szegedy et al. 2016).

    Returns:
        (places,) in float32, in the order of rows and then of places.
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
    return _losses(labelled_logits(model, inputs, wanted), targets, smoothing)


def token_loss(model: Any, batch: dict[str, torch.Tensor], shift: bool, smoothing: float = 0.0) -> torch.Tensor:
    """The mean of `token_losses`; 0 where no token has a label."""
    return mean_loss(token_losses(model, batch, shift, smoothing))


def mean_loss(losses: torch.Tensor) -> torch.Tensor:
    """The mean of losses, and 0 of none, where torch has no number; weights get a gradient of 0 then."""
    return losses.mean() if len(losses) else losses.sum()


def count_labels(batch: dict[str, torch.Tensor], shift: bool) -> int:
    """How many tokens of a batch `token_loss` is a mean over."""
    labels = batch["labels"][:, 1:] if shift else batch["labels"]
    return int((labels != IGNORED).sum())


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
    device = "cpu" if logits.device.type == "mps" else logits.device  # Metal has no float64
    each = torch.stack([nats, torch.ones_like(nats), right.float()], dim=1).to(device).double()
    rows = wanted.nonzero()[:, 0].to(device)
    return torch.zeros(len(labels), 3, dtype=torch.float64, device=device).index_add(0, rows, each)


def _inputs(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the model takes except for labels, which a decoder reads in their place."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    config = _own(model).config
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = _read_by_a_decoder(batch["labels"], config)
    return inputs


def _read_by_a_decoder(labels: torch.Tensor, config: Any) -> torch.Tensor:
    """Labels one place later, behind what `generate` begins with.

    Not by the model's own `prepare_decoder_input_ids_from_labels`: M2M-100 has none, and mBART's begins with the last
    label instead, so that a model from scratch would write otherwise than it has learnt.
    """
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    read = functional.pad(labels[:, :-1], (1, 0), value=start)
    return read.masked_fill(read == IGNORED, config.pad_token_id)


def _own(model: Any) -> Any:
    """The model of transformers inside the wrappers of several processes and of peft."""
    return unwrap(getattr(model, "module", model))


def _losses(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    return functional.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)


def _in_chunks(layer: Layer, hidden: torch.Tensor, targets: torch.Tensor, size: int, smoothing: float) -> torch.Tensor:
    """The losses (places, 1) of hidden vectors (places, H), the logits of `size` of them at a time."""

    def losses(some: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return _losses(layer(some), wanted, smoothing)

    if torch.is_grad_enabled():
        # Nothing is drawn at random here, and putting the random state back would cost more than the rest.
        losses = partial(checkpoint, losses, use_reentrant=False, preserve_rng_state=False)
    parts = zip(hidden.split(size), targets.split(size), strict=True)
    return torch.cat([losses(*part) for part in parts]).unsqueeze(1)


def _run(model: Any, inputs: dict[str, torch.Tensor], last: Callable[[Layer, torch.Tensor], torch.Tensor]) -> Any:
    """What a model puts out, with `last` in the place of its output embeddings, which it is handed.

    It runs inside the model's forward, where autocast is on and the weights of a model in parts are whole.
    """
    own = _own(model)
    embeddings = own.get_output_embeddings()
    layer, replaced = embeddings.forward, vars(embeddings).get("forward")
    embeddings.forward = partial(last, layer)
    # Without a cache of keys and values, which training has no use for, and which hides packed sequences.
    uncached = {"use_cache": False} if "use_cache" in inspect.signature(type(own).forward).parameters else {}
    try:
        return model(**inputs, **uncached)
    finally:
        del embeddings.forward
        if replaced:
            embeddings.forward = replaced


def _is_plain(model: Any, inputs: dict[str, torch.Tensor]) -> bool:
    """Whether the output embeddings give the logits themselves; Gemma 2 bends them afterwards, Cohere scales them.

    Tried once, with one row and one place; all processes of a run do it together, with their first batch.
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
