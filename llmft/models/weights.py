"""Weights of a model as files: checkpoints of one process, or of several with FSDP.

With an adapter, or with `model.freeze`, a checkpoint holds only the weights that train: of a 14 GB model the others
would be written with every checkpoint, and they can be read from where they came from.

A model is sharded (FSDP) if each process holds a part of every weight. All processes must call these functions then.
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
FROZEN_DIGEST = "beside"  # the key in a file's metadata with the digest of the weights that it leaves out


def save_trainable(model: torch.nn.Module, file: Path) -> None:
    """Write the weights that train, all buffers, and the digest of the frozen weights."""
    still = {name for name, value in model.named_parameters(remove_duplicate=False) if not value.requires_grad}
    state = {name: value for name, value in model.state_dict().items() if name not in still}
    metadata = {"format": "pt", FROZEN_DIGEST: _frozen_digest(model)}
    save_file({name: value.contiguous() for name, value in state.items()}, file, metadata=metadata)


def load(model: torch.nn.Module, file: Path) -> None:
    """Load a checkpoint: all weights, or those that train; in a sharded model, each process its part.

    Raises:
        Failure: if the frozen weights are not those that the checkpoint was trained with, or the adapter is another.
    """
    if is_sharded(model):
        set_model_state_dict(model, load_file(file), options=FULL)
        return
    with safe_open(file, "pt") as opened:
        digest = (opened.metadata() or {}).get(FROZEN_DIGEST)
    if digest is None:
        load_model(model, file)
        return
    if digest != _frozen_digest(model):
        raise Failure(f"the weights of model.path have changed since {file.parent} was trained")
    report = model.load_state_dict(load_file(file), strict=False)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    if wrong := [*report.unexpected_keys, *sorted(trained & {*report.missing_keys})]:
        raise Failure(f"{file} has the weights of another adapter, or of other layers: {', '.join(wrong[:3])}")


def unmap_weights(model: torch.nn.Module) -> None:
    """Copy memory-mapped weights, in place: otherwise they would change when their file is written over."""
    for value in (*model.parameters(), *model.buffers()):
        value.data = value.data.clone()


def weights_digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """sha256 of named weights, independent of their order."""
    found = sha256()
    for name, value in sorted(tensors):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _frozen_digest(model: torch.nn.Module) -> str:
    return weights_digest((name, value) for name, value in model.named_parameters() if not value.requires_grad)


def check_shardable(model: PreTrainedModel) -> None:
    """Raise UserError for a model without input embeddings, which accelerate needs to shard first."""
    try:
        model.get_input_embeddings()
    except NotImplementedError as error:
        what = f"must not be fsdp for {type(model).__name__}, which has no input embeddings to shard"
        raise UserError(Problem("hardware.strategy", what, hint="Write hardware.strategy=ddp.")) from error


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether each process holds a part of every weight."""
    return isinstance(model, FSDPModule)


def local_shard(value: torch.Tensor) -> torch.Tensor:
    """This process's part of a weight; without sharding, all of it."""
    return value.to_local() if isinstance(value, torch.distributed.tensor.DTensor) else value


def full_state_dict(model: Any) -> dict[str, torch.Tensor] | None:
    """All weights of a sharded model, in CPU memory of rank 0, and empty elsewhere; None if it is not sharded."""
    if not is_sharded(model):
        return None
    state: dict[str, Any] = get_model_state_dict(model, options=FULL)
    return state


def save_full(model: Any, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the result of `full_state_dict` as `save_pretrained` would, which would gather all weights again."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def save_optimizer(model: torch.nn.Module, optimizer: Any, scheduler: Any, folder: Path, writes: bool) -> None:
    """Write the optimizer state of a sharded model, gathered by rank 0, and the scheduler's.

    transformers' own way would write all weights again beside it.

    Args:
        writes: whether this is the process that writes.
    """
    state = get_optimizer_state_dict(model, optimizer, options=FULL)
    if writes:
        torch.save(state, folder / "optimizer.bin")
        torch.save(scheduler.state_dict(), folder / "scheduler.pt")
