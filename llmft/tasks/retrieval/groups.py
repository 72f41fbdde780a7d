"""Reads the texts of a batch in groups of similar length, so that little padding is computed."""

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

from llmft.tasks.objective import Batch

TOGETHER = 32
"""Texts that a CPU reads at once: fewer have less padding, more fill the cores. Other devices read all at once."""


def by_length(inputs: Batch, read: Callable[[Batch], torch.Tensor], chunk: int | None = None) -> torch.Tensor:
    """What `read` makes of each text, (N, ...), in the order of the texts.

    Args:
        inputs: tensors (N, T) by key, `attention_mask` among them.
        read: from such tensors of some of the texts, perhaps with less padding, to a value for each.
        chunk: texts whose activations are kept at once. The others are computed again when their gradient is, with the
            same dropout: exact gradients of a large batch in little memory (Gao et al. 2021, arXiv:2101.06983). None:
            all activations are kept.
    """
    mask = inputs["attention_mask"]
    size = chunk or (TOGETHER if mask.device.type == "cpu" else len(mask))
    if len(mask) <= size:
        return read(inputs)
    lengths = mask.sum(dim=1)
    order = torch.argsort(lengths, descending=True, stable=True)
    found = []
    for group in order.split(size):
        longest = max(int(lengths[group[0]]), 1)
        # Padding stands on one side for all, or the last column would not be a token of the longest.
        kept = slice(0, longest) if bool(mask[:, 0].all()) else slice(mask.shape[1] - longest, None)
        part = {name: values[group][:, kept] for name, values in inputs.items()}
        if chunk and torch.is_grad_enabled():
            made: torch.Tensor = checkpoint(read, part, use_reentrant=False)
            found.append(made)
        else:
            found.append(read(part))
    return torch.cat(found)[torch.argsort(order)]
