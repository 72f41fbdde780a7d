"""The parts of a model from its input up (embeddings, numbered layers, head), and which of them train."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from llmft.schema.problem import Problem, UserError

EMBEDDINGS = "embeddings"
LAYER = "layers."
RANGE = re.compile(r"layers\.(\d+)-(\d+)")


@dataclass
class Part:
    """A part by its name: `embeddings`, `layers.0`, `pooler`, `classifier`."""

    name: str
    of_base: bool
    """Whether it belongs to the base model, not to the head."""
    layer: int | None = None
    """Its number, if it is one of the numbered layers."""
    modules: list[nn.Module] = field(default_factory=list)
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    """By their names in the whole model; what several parts share belongs to the first."""

    @property
    def size(self) -> int:
        """Numbers in it."""
        return sum(parameter.numel() for parameter in self.parameters.values())


def parts(model: nn.Module) -> list[Part]:
    """Every part that has weights, in order. A model without numbered layers has its own outermost modules.

    The layers are found as lists of modules; lists side by side are pieces of the same layers, as in XLM, and a list
    further on goes on counting, as the decoder of T5 does. `embeddings` is whatever comes before the first layer, and
    later tables of the base model, such as those of relative positions.
    """
    base = model.base_model if isinstance(model, PreTrainedModel) else model
    prefix = "" if base is model else f"{model.base_model_prefix}."
    owners: dict[str, Part] = {}
    found: dict[str, Part] = {}
    lists = _layer_lists(model)
    numbers = {f"{path}.{i}": start + i for path, (count, start) in lists.items() for i in range(count)}
    layered = False
    for path, module in _modules(model, set(lists)):
        of_base, layer = path.startswith(prefix), numbers.get(path)
        layered = layered or layer is not None
        embeds = not layered or isinstance(module, nn.Embedding) or "embed" in path
        if layer is not None:
            name = f"{LAYER}{layer}"
        elif lists and of_base and embeds:
            name = EMBEDDINGS
        else:
            name = path.removeprefix(prefix)
        owners[path] = found.setdefault(name, Part(name, of_base, layer))
        owners[path].modules.append(module)
    for name, parameter in model.named_parameters():
        path = name
        while path and path not in owners:
            path = path.rpartition(".")[0]
        if not path:  # a weight of a module that holds the layers, such as the vector of a mask
            own = EMBEDDINGS if name.startswith(prefix) and lists else name
            owners[path := name] = found.setdefault(own, Part(own, name.startswith(prefix)))
        owners[path].parameters[name] = parameter
    # Some heads are made before the model below them.
    return sorted((part for part in found.values() if part.parameters), key=lambda part: not part.of_base)


def layer_depths(model: nn.Module) -> tuple[dict[str, int], int]:
    """How high each weight stands: embeddings 0, the first layer 1, and all that is no layer on top of them.

    Returns:
        the heights by the names of weights, and the highest.

    Raises:
        UserError: for a model without numbered layers.
    """
    found = parts(model)
    height = {EMBEDDINGS: 0} | {part.name: part.layer + 1 for part in found if part.layer is not None}
    if len(height) == 1:
        raise UserError(Problem("optimizer.layer_decay", f"{type(model).__name__} has no numbered layers"))
    top = len(height)
    return {name: height.get(part.name, top) for part in found for name in part.parameters}, top


def _layer_lists(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The outermost lists of layers by their paths: how many they are, and the number of the first."""
    found: dict[str, tuple[int, int]] = {}
    starts: dict[str, int] = {}
    count = 0
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) and not inside and not isinstance(module[0], nn.Embedding):
            start = starts.setdefault(path.rpartition(".")[0], count)
            count = max(count, start + len(module))
            found[path] = len(module), start
    return found


def _modules(module: nn.Module, lists: set[str], path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that hold no list of layers, and each layer, by their paths."""
    for name, child in module.named_children():
        where = f"{path}{name}"
        if any(other == where or other.startswith(f"{where}.") for other in lists):
            yield from _modules(child, lists, f"{where}.")
        else:
            yield where, child


def freeze(model: PreTrainedModel, patterns: list[str]) -> None:
    """Keep the weights that `patterns` name as they are; nothing is dropped out in what lies below all that trains.

    Args:
        patterns: `encoder`, the whole base model; parts as in `models/layers.py`, also `layers` and `layers.0-3`; and
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
        eval_frozen_parts(model)  # a base that is frozen as a whole is run once: see training/frozen.py


def eval_frozen_parts(model: PreTrainedModel) -> None:
    """From now on, let the parts below all that trains compute as in evaluation: their dropout would only blur."""
    model.register_forward_pre_hook(partial(_set_eval, parts(model)))


def _set_eval(found: list[Part], model: nn.Module, _: Any) -> None:
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
        hint += f"It has {', '.join(_part_names(found))}, and weights by their names."
        raise UserError(Problem("model.freeze", f"the model has no {pattern}", hint=hint))
    return named


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern means this name, or a module around it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _part_names(found: list[Part]) -> list[str]:
    """The names of all parts, the layers as one range."""
    last = max((part.layer for part in found if part.layer is not None), default=0)
    return list(dict.fromkeys(part.name if part.layer is None else f"{LAYER}0-{last}" for part in found))


def unfreeze_epochs(model: PreTrainedModel, layers: int) -> dict[str, int]:
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


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Let `model` keep only what goes into each layer.

    Raises:
        UserError: for a model that cannot.
    """
    if not model.supports_gradient_checkpointing:
        what = f"{type(model).__name__} has no layers that could be computed again"
        raise UserError(Problem("trainer.gradient_checkpointing", what))
    # Not re-entrant: the older way needs inputs with a gradient, which embeddings that do not train don't give.
    model.gradient_checkpointing_enable({"use_reentrant": False})
