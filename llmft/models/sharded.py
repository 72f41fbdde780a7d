"""A model whose weights lie in parts on several processes, as FSDP keeps them. All processes call these together."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from llmft.schema.problem import Problem, UserError

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def check_parts(model: PreTrainedModel) -> None:
    """Raise UserError for a model that accelerate can't part: it asks for the embeddings, to part them first."""
    try:
        model.get_input_embeddings()
    except NotImplementedError as error:
        what = f"{type(model).__name__} is not made of embeddings and layers, as fsdp needs it"
        raise UserError(Problem("hardware.strategy", what, hint="Write hardware.strategy=ddp.")) from error


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether each process has a part of every weight."""
    return isinstance(model, FSDPModule)


def whole_state(model: Any) -> dict[str, torch.Tensor] | None:
    """All weights on the processor of the first process, and none elsewhere; None for a model that is not sharded."""
    if not is_sharded(model):
        return None
    state: dict[str, Any] = get_model_state_dict(model, options=WHOLE)
    return state


def save(model: Any, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write what `whole_state` gave as `save_pretrained` does; of a sharded model, that would gather once more."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def load(model: torch.nn.Module, file: Path) -> None:
    """Give each process its part of the weights in a file."""
    set_model_state_dict(model, load_file(file), options=WHOLE)


def own_part(value: torch.Tensor) -> torch.Tensor:
    """What this process has of a weight."""
    return value.to_local() if isinstance(value, torch.distributed.tensor.DTensor) else value
