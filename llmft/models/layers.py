"""The parts of a model from its input up: embeddings, numbered layers, head; freezing and unfreezing them."""

import math
import re
from collections.abc import Collection, Iterator, Sequence
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
BATCH_NORM = "batch_norm"
# What timm calls the layers of a model: a sequence of stages, or stages numbered from 1.
TIMM_LISTS = ("timm_model.blocks", "timm_model.stages", "timm_model.layers")
TIMM_STAGE = re.compile(r"timm_model\.layer(\d+)")


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
    lists, head = _layer_lists(model), {id(parameter) for parameter in head_weights(model)}
    numbers = {f"{path}.{i}": start + i for path, (count, start) in lists.items() for i in range(count)}
    matches = {path: TIMM_STAGE.fullmatch(path) for path, _ in model.named_modules()}
    stages = {path: int(match[1]) - 1 for path, match in matches.items() if match}
    numbers |= stages
    layered = False  # whether a numbered layer has come yet
    for path, module in _modules(model, {*lists, *stages}, stages):
        of_base, layer = path.startswith(prefix), numbers.get(path)
        of_base = of_base and not any(id(parameter) in head for parameter in module.parameters())
        layered = layered or layer is not None
        embeds = not layered or isinstance(module, nn.Embedding) or "embed" in path
        if layer is not None:
            name = f"{LAYER}{layer}"
        elif numbers and of_base and embeds:
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
            own = EMBEDDINGS if name.startswith(prefix) and numbers else name
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


def timm_heads(model: nn.Module) -> list[nn.Module]:
    """The heads of a model of timm, which has them inside, two if it was distilled; empty for other models."""
    inner: Any = getattr(model, "timm_model", None)
    found = inner.get_classifier() if hasattr(inner, "get_classifier") else ()
    return list(found) if isinstance(found, tuple) else [found]


def head_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of `timm_heads`."""
    return [parameter for head in timm_heads(model) for parameter in head.parameters()]


def freeze_norms(model: nn.Module) -> None:
    """From now on, run frozen batch normalization in eval mode: its statistics would go on changing otherwise."""
    model.register_forward_pre_hook(partial(_set_eval, [], _norms(model)))


def _norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def encoder_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights below the head: those of the base model; empty for a model that has none apart from its head."""
    base = getattr(model, "base_model", model)
    head = {id(parameter) for parameter in head_weights(model)}
    if base is model or not (head or isinstance(base, PreTrainedModel)):
        return []
    return [parameter for parameter in base.parameters() if id(parameter) not in head]


def backbone_of(model: nn.Module) -> Any:
    """The module of a model for images that gives maps of features to its other parts; None without one.

    Of a classifier of timm it is the model in its wrapper, whose head is inside.
    """
    if hasattr(model, "timm_model"):
        return model.timm_model
    inside = (part for part in model.modules() if part is not model)
    return next((part for part in inside if hasattr(part, "out_features") and hasattr(part, "channels")), None)


def backbone_weights(model: nn.Module) -> set[str]:
    """The names of the weights that `optimizer.backbone_lr` is for: of the backbone, else of the base model.

    Raises:
        UserError: for a model without either.
    """
    own = {id(parameter) for parameter in encoder_weights(model)}
    if (base := backbone_of(model)) and not head_weights(model):
        own = {id(parameter) for parameter in base.parameters()}
    if not own:
        what = f"is for a model with a backbone or a base model, and {type(model).__name__} has neither"
        raise UserError(Problem("optimizer.backbone_lr", what, hint="Leave it out."))
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def _layer_lists(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The outermost lists of layers by path: their length, and the number of their first layer."""
    found: dict[str, tuple[int, int]] = {}
    starts: dict[str, int] = {}
    count = 0
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        # A list of embeddings, such as those of a table's category columns, is no list of layers.
        listed = isinstance(module, nn.ModuleList) or path in TIMM_LISTS
        if listed and len(module) and not inside and not isinstance(module[0], nn.Embedding):
            start = starts.setdefault(path.rpartition(".")[0], count)
            count = max(count, start + len(module))
            found[path] = len(module), start
    return found


def _modules(
    module: nn.Module, lists: set[str], stages: Collection[str], path: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """Each layer, and each outermost module without layers inside, by path; `stages` are layers themselves."""
    for name, child in module.named_children():
        where = f"{path}{name}"
        if where not in stages and any(other == where or other.startswith(f"{where}.") for other in lists):
            yield from _modules(child, lists, stages, f"{where}.")
        else:
            yield where, child


def freeze(model: PreTrainedModel, patterns: list[str]) -> None:
    """Freeze the weights that `patterns` name, and turn dropout off in the parts below all that trains.

    Args:
        patterns: `encoder` for the whole base model; names of parts, also `layers` and `layers.0-3`; names of weights
            or modules, with `*`; and `batch_norm` for batch normalization, whose running statistics then stay, too.

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
    """From now on, run the parts below all that trains in eval mode: dropout there is noise that no weight can use.

    Frozen batch normalization is in eval mode wherever it stands: its statistics would go on changing otherwise.
    """
    model.register_forward_pre_hook(partial(_set_eval, parts(model), _norms(model)))


def _set_eval(found: list[Part], norms: Sequence[nn.Module], model: nn.Module, _: Any) -> None:
    for part in found if model.training else ():
        if any(parameter.requires_grad for parameter in part.parameters.values()):
            break
        for module in part.modules:
            module.eval()
    for norm in norms if model.training else ():
        if norm.weight is not None and not norm.weight.requires_grad:
            norm.eval()


def _named(model: PreTrainedModel, found: list[Part], pattern: str) -> list[nn.Parameter]:
    """The weights that a pattern of `model.freeze` matches."""
    if pattern == "encoder":
        if not (weights := encoder_weights(model)):
            what = f"must not be encoder for {type(model).__name__}, which has no base model apart from its head"
            raise UserError(Problem("model.freeze", what))
        return weights
    if pattern == BATCH_NORM:
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            what = f"must not be batch_norm for {type(model).__name__}, which has none"
            raise UserError(Problem("model.freeze", what))
        return [parameter for norm in norms for parameter in norm.parameters()]
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
