"""The parts of a model from its input up: embeddings, numbered layers, head; freezing and unfreezing them."""

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
    """A part of a model: `embeddings`, `layers.0`, `pooler`, `classifier`."""

    name: str
    of_base: bool
    """Whether it belongs to the base model and not to the head."""
    layer: int | None = None
    """The number of a numbered layer, from 0 at the input."""
    modules: list[nn.Module] = field(default_factory=list)
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    """By name in the whole model. A weight that several parts share belongs to the first."""

    @property
    def size(self) -> int:
        """The number of weights."""
        return sum(parameter.numel() for parameter in self.parameters.values())


def parts(model: nn.Module) -> list[Part]:
    """Every part that has weights, in order. In a model without numbered layers, its top-level modules.

    A layer is a member of a ModuleList. Lists side by side hold pieces of the same layers, as in XLM; a list elsewhere
    continues the count, as T5's decoder does. `embeddings` is whatever comes before the first layer, and every later
    embedding of the base model, such as those of relative positions.
    """
    base = model.base_model if isinstance(model, PreTrainedModel) else model
    prefix = "" if base is model else f"{model.base_model_prefix}."
    owners: dict[str, Part] = {}
    found: dict[str, Part] = {}
    lists = _layer_lists(model)
    numbers = {f"{path}.{i}": start + i for path, (count, start) in lists.items() for i in range(count)}
    layered = False  # whether a numbered layer has come yet
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
        if not path:  # a weight beside the layers, in no module of its own, such as the vector of a mask
            own = EMBEDDINGS if name.startswith(prefix) and lists else name
            owners[path := name] = found.setdefault(own, Part(own, name.startswith(prefix)))
        owners[path].parameters[name] = parameter
    # Stable: only the head moves to the end, since some models define it before their base model.
    return sorted((part for part in found.values() if part.parameters), key=lambda part: not part.of_base)


def layer_depths(model: nn.Module) -> tuple[dict[str, int], int]:
    """The depth of each weight for `optimizer.layer_decay`: embeddings 0, the first layer 1, the head the highest.

    Returns:
        the depths by names of weights, and the highest depth.

    Raises:
        UserError: for a model without numbered layers.
    """
    found = parts(model)
    height = {EMBEDDINGS: 0} | {part.name: part.layer + 1 for part in found if part.layer is not None}
    if len(height) == 1:
        raise UserError(Problem("optimizer.layer_decay", f"{type(model).__name__} has no numbered layers"))
    top = len(height)
    return {name: height.get(part.name, top) for part in found for name in part.parameters}, top


def backbone_of(model: nn.Module) -> Any:
    """The module of a model for images that gives maps of features to its other parts; None without one."""
    inside = (part for part in model.modules() if part is not model)
    return next((part for part in inside if hasattr(part, "out_features") and hasattr(part, "channels")), None)


def backbone_weights(model: nn.Module) -> set[str]:
    """The names of the weights that `optimizer.backbone_lr` is for: of the backbone, else of the base model.

    Raises:
        UserError: for a model without either.
    """
    base = backbone_of(model)
    if base is None and isinstance(model, PreTrainedModel) and model.base_model is not model:
        base = model.base_model
    if base is None:
        what = f"is for a model with a backbone or a base model, and {type(model).__name__} has neither"
        raise UserError(Problem("optimizer.backbone_lr", what, hint="Leave it out."))
    own = {id(parameter) for parameter in base.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def _layer_lists(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The outermost lists of layers by path: their length, and the number of their first layer."""
    found: dict[str, tuple[int, int]] = {}
    starts: dict[str, int] = {}
    count = 0
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        # A list of embeddings, such as those of a table's category columns, is no list of layers.
        if isinstance(module, nn.ModuleList) and len(module) and not inside and not isinstance(module[0], nn.Embedding):
            start = starts.setdefault(path.rpartition(".")[0], count)
            count = max(count, start + len(module))
            found[path] = len(module), start
    return found


def _modules(module: nn.Module, lists: set[str], path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Each layer, and each outermost module without layers inside, by path."""
    for name, child in module.named_children():
        where = f"{path}{name}"
        if any(other == where or other.startswith(f"{where}.") for other in lists):
            yield from _modules(child, lists, f"{where}.")
        else:
            yield where, child


def freeze(model: PreTrainedModel, patterns: list[str]) -> None:
    """Freeze the weights that `patterns` name, and turn dropout off in the parts below all that trains.

    Args:
        patterns: `encoder` for the whole base model; names of parts, also `layers` and `layers.0-3`; and names of
            weights or modules, with `*`.

    Raises:
        UserError: if a pattern matches nothing, with the names that exist, or if nothing is left to train.
    """
    found = parts(model)
    for pattern in patterns:
        for parameter in _named(model, found, pattern):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(Problem("model.freeze", "must leave something to train, got a pattern for every weight"))
    if any(parameter.requires_grad for part in found if part.of_base for parameter in part.parameters.values()):
        eval_frozen_parts(model)  # a base model that is frozen as a whole runs only once: see training/frozen.py


def eval_frozen_parts(model: PreTrainedModel) -> None:
    """From now on, run the parts below all that trains in eval mode: dropout there is noise that no weight can use."""
    model.register_forward_pre_hook(partial(_set_eval, parts(model)))


def _set_eval(found: list[Part], model: nn.Module, _: Any) -> None:
    for part in found if model.training else ():
        if any(parameter.requires_grad for parameter in part.parameters.values()):
            break
        for module in part.modules:
            module.eval()


def _named(model: PreTrainedModel, found: list[Part], pattern: str) -> list[nn.Parameter]:
    """The weights that a pattern of `model.freeze` matches."""
    if pattern == "encoder":
        if model.base_model is model or not isinstance(model.base_model, PreTrainedModel):
            what = f"must not be encoder for {type(model).__name__}, which has no base model apart from its head"
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
        hint += f"The model has {', '.join(_part_names(found))}."
        raise UserError(Problem("model.freeze", f"must name parts or weights of the model, got {pattern}", hint=hint))
    return named


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches this name, or a module around it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _part_names(found: list[Part]) -> list[str]:
    """The names of all parts, with the layers as one range."""
    last = max((part.layer for part in found if part.layer is not None), default=0)
    return list(dict.fromkeys(part.name if part.layer is None else f"{LAYER}0-{last}" for part in found))


def unfreeze_epochs(model: PreTrainedModel, layers: int) -> dict[str, int]:
    """The epoch, from 0, in which each part starts to train: `layers` more from the top in each epoch.

    Parts above the layers train from the start; the embeddings follow the lowest layer (Howard and Ruder 2018, section
    3.3).

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
    """Turn on gradient checkpointing: keep the input of each layer, and compute the rest again in the backward pass.

    Raises:
        UserError: for a model that does not support it.
    """
    if not model.supports_gradient_checkpointing:
        what = f"must be false for {type(model).__name__}, which does not support it"
        raise UserError(Problem("trainer.gradient_checkpointing", what))
    # Not re-entrant: that needs inputs with a gradient, and frozen embeddings have none.
    model.gradient_checkpointing_enable({"use_reentrant": False})
