"""The weights of a model as files: checkpoints, of one process or of several that have a part each.

Beside an adapter a checkpoint holds only the weights that train: of a model of 14 GB the others would be written with
every checkpoint, and are where they came from.

A model is sharded (FSDP) where each process has a part of every weight. All processes then call these together.
"""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from llmft.schema.problem import Failure, Problem, UserError

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
FROZEN_DIGEST = "beside"  # the digest of the weights that were left out, in the file's metadata


def save_trainable(model: torch.nn.Module, file: Path) -> None:
    """Write the weights that train and all buffers, and the digest of the other weights."""
    still = {name for name, value in model.named_parameters(remove_duplicate=False) if not value.requires_grad}
    state = {name: value for name, value in model.state_dict().items() if name not in still}
    metadata = {"format": "pt", FROZEN_DIGEST: _frozen_digest(model)}
    save_file({name: value.contiguous() for name, value in state.items()}, file, metadata=metadata)


def load(model: torch.nn.Module, file: Path) -> None:
    """Take the weights of a checkpoint: all of them, or those that train; each process of a sharded model its part.

    Raises:
        Failure: if the other weights are not those that the checkpoint was trained beside.
    """
    if is_sharded(model):
        set_model_state_dict(model, load_file(file), options=FULL)
        return
    with safe_open(file, "pt") as opened:
        beside = (opened.metadata() or {}).get(FROZEN_DIGEST)
    if beside is None:
        load_model(model, file)
        return
    if beside != _frozen_digest(model):
        raise Failure(f"the weights of model.path are not those that {file.parent} was trained beside")
    report = model.load_state_dict(load_file(file), strict=False)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    if wrong := [*report.unexpected_keys, *sorted(trained & {*report.missing_keys})]:
        raise Failure(f"{file} is of another adapter: {', '.join(wrong[:3])}")


def unmap_weights(model: torch.nn.Module) -> None:
    """Copy weights that are mapped from their file into memory: they would follow the file when it is written over."""
    for value in (*model.parameters(), *model.buffers()):
        value.data = value.data.clone()


def weights_digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """sha256 of named weights, whatever their order."""
    found = sha256()
    for name, value in sorted(tensors):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _frozen_digest(model: torch.nn.Module) -> str:
    return weights_digest((name, value) for name, value in model.named_parameters() if not value.requires_grad)


def check_shardable(model: PreTrainedModel) -> None:
    """Raise UserError for a model that accelerate cannot shard: it asks for the embeddings, to shard them first."""
    try:
        model.get_input_embeddings()
    except NotImplementedError as error:
        what = f"{type(model).__name__} is not made of embeddings and layers, as fsdp needs it"
        raise UserError(Problem("hardware.strategy", what, hint="Write hardware.strategy=ddp.")) from error


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether each process has a part of every weight."""
    return isinstance(model, FSDPModule)


def local_shard(value: torch.Tensor) -> torch.Tensor:
    """What this process has of a weight."""
    return value.to_local() if isinstance(value, torch.distributed.tensor.DTensor) else value


def full_state_dict(model: Any) -> dict[str, torch.Tensor] | None:
    """All weights on the processor of the first process, and none elsewhere; None for a model that is not sharded."""
    if not is_sharded(model):
        return None
    state: dict[str, Any] = get_model_state_dict(model, options=FULL)
    return state


def save_full(model: Any, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write what `full_state_dict` gave as `save_pretrained` does; of a sharded model, that would gather once more."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def save_optimizer(model: torch.nn.Module, optimizer: Any, scheduler: Any, folder: Path, writes: bool) -> None:
    """Write the whole state of the optimizer of a sharded model, gathered by the first process.

    transformers would write the weights once more beside it.
    """
    state = get_optimizer_state_dict(model, optimizer, options=FULL)
    if writes:
        torch.save(state, folder / "optimizer.bin")
        torch.save(scheduler.state_dict(), folder / "scheduler.pt")
