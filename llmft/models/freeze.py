"""Which weights stay as they are."""

import math
import re
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from llmft.models.parts import EMBEDDINGS, LAYER, Part, parts
from llmft.schema.problem import Problem, UserError

RANGE = re.compile(r"layers\.(\d+)-(\d+)")


def freeze(model: PreTrainedModel, patterns: list[str]) -> None:
    """Keep the weights that `patterns` name as they are; nothing is dropped out in what lies below all that trains.

    Args:
        patterns: `encoder`, the whole base model; parts as in `models/parts.py`, also `layers` and `layers.0-3`; and
            names of weights or modules, with `*`.

    Raises:
        UserError: where a pattern names nothing, with what there is, or where nothing is left to train.
    """
    found = parts(model)
    for pattern in patterns:
        for parameter in _named(model, found, pattern):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(Problem("model.freeze", "leaves nothing to train"))
    if any(parameter.requires_grad for part in found if part.of_base for parameter in part.parameters.values()):
        still(model)  # a base that is frozen as a whole is run once: see training/frozen.py


def still(model: PreTrainedModel) -> None:
    """From now on, let the parts below all that trains compute as in evaluation: their dropout would only blur."""
    model.register_forward_pre_hook(partial(_settle, parts(model)))


def _settle(found: list[Part], model: nn.Module, _: Any) -> None:
    for part in found if model.training else ():
        if any(parameter.requires_grad for parameter in part.parameters.values()):
            break
        for module in part.modules:
            module.eval()


def _named(model: PreTrainedModel, found: list[Part], pattern: str) -> list[nn.Parameter]:
    """The weights that a pattern names."""
    if pattern == "encoder":
        if model.base_model is model or not isinstance(model.base_model, PreTrainedModel):
            what = f"{type(model).__name__} has no encoder that could be told from its head"
            raise UserError(Problem("model.freeze", what))
        return list(model.base_model.parameters())
    between = RANGE.fullmatch(pattern)
    layers = range(int(between[1]), int(between[2]) + 1) if between else range(0)
    chosen = [part for part in found if part.layer in layers or _matches(part.name, pattern)]
    named = [parameter for part in chosen for parameter in part.parameters.values()]
    named = named or [parameter for name, parameter in model.named_parameters() if _matches(name, pattern)]
    if not named:
        near = get_close_matches(pattern, [part.name for part in found], 1)
        hint = f"Did you mean {near[0]}? " if near else ""
        hint += f"It has {', '.join(_folded(found))}, and weights by their names."
        raise UserError(Problem("model.freeze", f"the model has no {pattern}", hint=hint))
    return named


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern means this name, or a module around it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _folded(found: list[Part]) -> list[str]:
    """The names of all parts, the layers as one range."""
    last = max((part.layer for part in found if part.layer is not None), default=0)
    return list(dict.fromkeys(part.name if part.layer is None else f"{LAYER}0-{last}" for part in found))


def unfreezing(model: PreTrainedModel, layers: int) -> dict[str, int]:
    """The epoch, counted from 0, from which each part trains, with `layers` more of them from the top in each epoch.

    What stands on top of the layers trains from the start; the embeddings come after the lowest layer (Howard and Ruder
    2018, section 3.3).

    Raises:
        UserError: for a model without numbered layers.
    """
    found = parts(model)
    count = sum(part.layer is not None for part in found)
    if not count:
        raise UserError(Problem("model.unfreeze", f"{type(model).__name__} has no numbered layers"))
    below = {EMBEDDINGS: count + 1} | {part.name: count - part.layer for part in found if part.layer is not None}
    return {part.name: math.ceil(below.get(part.name, 0) / layers) for part in found}
