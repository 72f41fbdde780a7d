"""The parts of a model from its input up: embeddings, numbered layers, what follows them, the head."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedModel

from llmft.schema.problem import Problem, UserError

EMBEDDINGS = "embeddings"
LAYER = "layers."


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
    lists = _lists(model)
    numbers = {f"{path}.{i}": start + i for path, (count, start) in lists.items() for i in range(count)}
    layered = False
    for path, module in _pieces(model, set(lists)):
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


def depths(model: nn.Module) -> tuple[dict[str, int], int]:
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


def _lists(model: nn.Module) -> dict[str, tuple[int, int]]:
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


def _pieces(module: nn.Module, lists: set[str], path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that hold no list of layers, and each layer, by their paths."""
    for name, child in module.named_children():
        where = f"{path}{name}"
        if any(other == where or other.startswith(f"{where}.") for other in lists):
            yield from _pieces(child, lists, f"{where}.")
        else:
            yield where, child
