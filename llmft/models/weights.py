"""The weights of a checkpoint. Beside an adapter only those that train: of a model of 14 GB the others would be written
with every checkpoint, and are where they came from."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file

from llmft.models import sharded
from llmft.schema.problem import Failure

BESIDE = "beside"  # the digest of the weights that were left out, in the file's metadata


def save_what_trains(model: torch.nn.Module, file: Path) -> None:
    """Write the weights that train and all buffers, and the digest of the other weights."""
    still = {name for name, value in model.named_parameters(remove_duplicate=False) if not value.requires_grad}
    state = {name: value for name, value in model.state_dict().items() if name not in still}
    metadata = {"format": "pt", BESIDE: _beside(model)}
    save_file({name: value.contiguous() for name, value in state.items()}, file, metadata=metadata)


def load(model: torch.nn.Module, file: Path) -> None:
    """Take the weights of a checkpoint: all of them, or those that train.

    Raises:
        Failure: if the other weights are not those that the checkpoint was trained beside.
    """
    if sharded.is_sharded(model):
        sharded.load(model, file)
        return
    with safe_open(file, "pt") as opened:
        beside = (opened.metadata() or {}).get(BESIDE)
    if beside is None:
        load_model(model, file)
        return
    if beside != _beside(model):
        raise Failure(f"the weights of model.path are not those that {file.parent} was trained beside")
    report = model.load_state_dict(load_file(file), strict=False)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    if wrong := [*report.unexpected_keys, *sorted(trained & {*report.missing_keys})]:
        raise Failure(f"{file} is of another adapter: {', '.join(wrong[:3])}")


def unmap(model: torch.nn.Module) -> None:
    """Copy weights that are mapped from their file into memory: they would follow the file when it is written over."""
    for value in (*model.parameters(), *model.buffers()):
        value.data = value.data.clone()


def digest_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """sha256 of named weights, whatever their order."""
    found = sha256()
    for name, value in sorted(tensors):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _beside(model: torch.nn.Module) -> str:
    return digest_of((name, value) for name, value in model.named_parameters() if not value.requires_grad)
