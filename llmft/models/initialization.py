"""First weights of what is not pretrained: a head for other labels, and matrices drawn by a named rule."""

import copy
import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmft.data.checks import few

RULES: dict[str, Callable[[Tensor], object]] = {
    # Variance 2 / (inputs + outputs): Glorot and Bengio 2010.
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    # Variance 2 / inputs: He et al. 2015.
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    # Orthonormal rows or columns, whichever are fewer: Saxe et al. 2014.
    "orthogonal": nn.init.orthogonal_,
}


def fit_head(
    model: PreTrainedModel, own: dict[int, str], wanted: dict[int, str], absent: set[str], misfits: set[str]
) -> str | None:
    """Bring the rows of a head that was read with the weights into the order of `wanted`, or draw it anew.

    Args:
        own: the labels by number that the head was trained with, as config.json names them.
        wanted: those of the data; of a number, none.
        absent: weights that the file did not have.
        misfits: weights that the file had for another number of labels, and that are new already.

    Returns:
        what the user should know, or None for a head that is new anyway or fits as it is.
    """
    rows = _label_weights(model)
    if not rows or absent & rows.keys():
        return None
    if misfits & rows.keys():
        return f"the head is new: that of model.path is for {_describe_labels(own)}"
    if not wanted:
        return "the head for a number is kept: that of model.path. For another number it starts from the wrong place"
    theirs, ours = [own[place] for place in sorted(own)], [wanted[place] for place in sorted(wanted)]
    if theirs == ours:
        return None
    if (order := _match_labels(theirs, ours)) is None:
        _reset(model, rows)
        return f"the head is new: that of model.path is for {_describe_labels(own)}"
    with torch.no_grad():
        for name, axis in rows.items():
            weight = model.get_parameter(name)
            weight.copy_(weight.index_select(axis, torch.tensor(order)))
    if sorted(theirs) == sorted(ours):
        return "the head is kept, and its rows are in the order of the labels here"
    pairs = ", ".join(f"{theirs[place]} for {name}" for place, name in list(zip(order, ours, strict=True))[:4])
    return f"the head is kept: its labels are taken for those here ({pairs}{', ...' if len(ours) > 4 else ''})"


def _match_labels(theirs: list[str], ours: list[str]) -> list[int] | None:
    """Which of their rows each of our labels has, by name; None where the names differ by more than case.

    `LABEL_1` is what transformers writes where nobody gave a name: it stands for the label `1`, and for no other.
    """
    numbered = [re.sub(r"^LABEL_(?=\d+$)", "", name) for name in theirs]
    for named, sought in (
        (theirs, ours),
        (numbered, ours),
        ([name.casefold() for name in theirs], [name.casefold() for name in ours]),
    ):
        if sorted(named) == sorted(sought) and len(set(named)) == len(named):
            return [named.index(name) for name in sought]
    return None


def _label_weights(model: PreTrainedModel) -> dict[str, int]:
    """The weights that have a row a label, each with the axis of those: found by asking for one label more."""
    config = copy.deepcopy(model.config)
    config.num_labels += 1
    with torch.device("meta"):
        wider = type(model)(config)
    found = {}
    sizes = {name: weight.shape for name, weight in wider.named_parameters()}
    for name, weight in model.named_parameters():
        axes = [axis for axis, size in enumerate(weight.shape) if name in sizes and sizes[name][axis] != size]
        if axes:
            found[name] = axes[0]
    return found


def _reset(model: PreTrainedModel, rows: dict[str, int]) -> None:
    """New weights for the rows of labels: normal with the architecture's deviation, biases 0."""
    deviation = getattr(model.config.get_text_config(), "initializer_range", None) or 0.02
    with torch.no_grad():
        for name in rows:
            weight = model.get_parameter(name)
            weight.normal_(0, deviation) if weight.dim() > 1 else weight.zero_()


def _describe_labels(labels: dict[int, str]) -> str:
    """`2 labels (bad, good)`, or without names where nobody gave any."""
    names = [str(labels[place]) for place in sorted(labels)]
    bare = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    count = f"{len(names)} label{'s' if len(names) > 1 else ''}"
    return f"{count} without names" if bare else f"{count} ({few(names)})"


def initialize(model: nn.Module, rule: str) -> None:
    """Draw the matrix of every linear layer anew, the head's included, from torch's global random state.

    Embeddings, norms and biases stay as the architecture makes them, and so does a matrix that is tied to an embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in embeddings:
            # GPT-2's Conv1D is a linear layer that keeps its matrix the other way round, (in, out).
            RULES[rule](module.weight.T if isinstance(module, Conv1D) else module.weight)
