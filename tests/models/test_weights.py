"""Checkpoints beside an adapter: small, whole, and of the same model."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from llmft.data.committed import set_file_modes
from llmft.models import weights
from llmft.schema.problem import Failure


def model(seed: int) -> nn.Sequential:
    """The first layer stays as it is; the norm has buffers that move in training."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(50, 40), nn.BatchNorm1d(40), nn.Linear(40, 2))
    made[0].requires_grad_(False)
    torch.manual_seed(seed)
    made[2].reset_parameters()
    made(torch.randn(8, 50))
    return made


def test_what_trains_comes_back(here: Path) -> None:
    one, other = model(1), model(2)
    weights.save_trainable(one, here / "w.safetensors")
    kept = load_file(here / "w.safetensors")
    assert {"2.weight", "2.bias", "1.weight", "1.running_mean"} <= kept.keys()
    assert not kept.keys() & {"0.weight", "0.bias"}
    assert not torch.equal(one[2].weight, other[2].weight)
    weights.load(other, here / "w.safetensors")
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_beside_other_weights_it_is_refused(here: Path) -> None:
    weights.save_trainable(model(1), here / "w.safetensors")
    other = model(1)
    other[0].weight.data[3, 3] += 1e-6
    with pytest.raises(Failure, match=r"the weights of model\.path have changed since"):
        weights.load(other, here / "w.safetensors")


def test_of_another_adapter_it_is_refused(here: Path) -> None:
    weights.save_trainable(model(1), here / "w.safetensors")
    other = model(1)
    other.append(nn.Linear(2, 2))
    with pytest.raises(Failure, match=r"of another adapter, or of other layers: 3\.bias, 3\.weight"):
        weights.load(other, here / "w.safetensors")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_weights_can_be_read_by_whom_other_files_can(umask: int, mode: int, here: Path) -> None:
    before = os.umask(umask)
    try:
        weights.save_trainable(model(1), here / "w.safetensors")
        set_file_modes(here)
        assert (here / "w.safetensors").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
