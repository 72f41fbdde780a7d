"""Which parts of a model are trained: a line per part, before training and in the report."""

from itertools import groupby
from typing import Any

from transformers import PreTrainedModel

from llmft.models.adapters import is_original, unwrap
from llmft.models.layers import LAYER, Part, parts, unfreeze_epochs


def trains(model: PreTrainedModel, unfreeze: int | None = None) -> list[dict[str, Any]]:
    """The parts of a model before training: `part`, `parameters`, and in words whether it `trains`.

    Consecutive layers that are alike share one line, `layers.0-3`.

    Args:
        unfreeze: `model.unfreeze`.
    """
    starts = unfreeze_epochs(model, unfreeze) if unfreeze else {}
    plain = unwrap(model)
    found = []
    for part in parts(plain):
        part.parameters = {name: weight for name, weight in part.parameters.items() if not is_original(name)}
        found.append((part, _state(part, starts.get(part.name, 0))))
    lines = []
    for _, alike in groupby(found, key=lambda one: (one[0].layer is None and one[0].name, one[0].size, one[1])):
        group = list(alike)
        first, last = group[0][0], group[-1][0]
        name = first.name if first is last else f"{LAYER}{first.layer}-{last.layer}"
        lines.append({"part": name, "parameters": sum(part.size for part, _ in group), "trains": group[0][1]})
    own = {id(weight) for weight in plain.parameters()}
    if prefix := sum(weight.numel() for weight in model.parameters() if id(weight) not in own):
        lines.append({"part": "prefix", "parameters": prefix, "trains": "trains"})
    return lines


def _state(part: Part, start: int) -> str:
    training = sum(parameter.numel() for parameter in part.parameters.values() if parameter.requires_grad)
    if not training:
        return "frozen"
    share = "trains" if training == part.size else f"{training:,} of them train"
    return f"{share} from epoch {start + 1} on" if start else share
