"""Which numbers a machine gets, by what its chip is made for."""

import os
from typing import Any

import pytest
import torch

from llmft.schema.execution import HardwareConfig
from llmft.schema.problem import UserError
from llmft.training.hardware import detect, device_of

CHIPS = [
    ({"avx512_bf16": True}, "auto", "bf16", "this processor has avx512_bf16"),
    ({"amx_bf16": True, "avx512_bf16": True}, "auto", "bf16", "this processor has amx_bf16"),
    ({"avx512_bf16": False, "avx2": True}, "auto", "fp32", "this processor has no bfloat16 of its own"),
    ({}, "bf16", "bf16", "as asked for"),
    ({"avx512_bf16": True}, "fp32", "fp32", "as asked for"),
]


@pytest.mark.parametrize(("capabilities", "precision", "chosen", "reason"), CHIPS)
def test_precision_follows_the_processor(
    capabilities: dict[str, bool], precision: Any, chosen: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    found = detect(HardwareConfig(device="cpu", precision=precision))
    assert (found.device, found.precision, found.reason) == ("cpu", chosen, reason)


@pytest.mark.parametrize(("capability", "chosen"), [((8, 0), "bf16"), ((9, 0), "bf16"), ((7, 5), "fp32")])
def test_precision_follows_the_gpu(capability: tuple[int, int], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert (detect(HardwareConfig()).device, detect(HardwareConfig()).precision) == ("cuda", chosen)


WRONG = [
    ({"device": "cuda"}, "hardware.device"),
    ({"device": "mps"}, "got mps: torch finds no GPU through Metal here"),
    ({"device": "cpu", "precision": "fp16"}, "hardware.precision"),
    ({"strategy": "deepspeed", "processes": 2}, "Install it: pip install deepspeed"),
]


def test_each_process_has_its_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    two = detect(HardwareConfig(device="cpu", precision="fp32", processes=2))
    assert str(two) == "cpu, 2 processes of 2 threads, fp32 (as asked for)"
    assert detect(HardwareConfig(device="cpu", processes=8)).threads == 1
    assert str(detect(HardwareConfig(device="cpu", precision="fp32"))) == "cpu, 5 threads, fp32 (as asked for)"


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A100")
    assert str(detect(HardwareConfig(precision="bf16", processes=2))) == "2 x A100, bf16 (as asked for)"
    assert str(detect(HardwareConfig(precision="bf16"))) == "A100, bf16 (as asked for)"
    with pytest.raises(UserError, match=r"hardware.processes  must be at most 2, one for each GPU, got 3"):
        detect(HardwareConfig(processes=3))


def test_the_device_is_known_without_starting_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has started it cannot be forked."""

    def start() -> None:
        raise AssertionError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "_lazy_init", start)
    assert device_of(HardwareConfig(processes=2)) == "cuda"
    with pytest.raises(AssertionError):
        detect(HardwareConfig())


@pytest.mark.parametrize(("keys", "key"), WRONG)
def test_what_the_machine_lacks_is_said(keys: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=key):
        detect(HardwareConfig(**keys))


@pytest.mark.parametrize(
    ("gpu", "metal", "device"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, False, "cuda")],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(
    gpu: bool, metal: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(gpu))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: metal)
    assert device_of(HardwareConfig()) == device


MAC = [
    ({}, None),
    ({"precision": "bf16"}, None),
    ({"precision": "fp16"}, "must be bf16, fp32, or auto on mps, got fp16: it needs an NVIDIA or AMD GPU"),
    ({"processes": 2}, "must be 1 on the GPU of a Mac, got 2"),
    ({"device": "cuda"}, "got cuda: torch finds no CUDA or ROCm GPU here"),
]


@pytest.mark.parametrize(("keys", "wrong"), MAC)
def test_what_a_mac_does_and_lacks(keys: dict[str, Any], wrong: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: (major, minor) <= (14, 2))
    if wrong:
        with pytest.raises(UserError, match=wrong):
            detect(HardwareConfig(**keys))
        return
    found = detect(HardwareConfig(**keys))
    assert (found.device, found.precision) == ("mps", keys.get("precision", "fp32"))
    assert str(found).startswith("the GPU of this Mac (mps), ")
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: False)
    if keys:
        with pytest.raises(UserError, match="needs macOS 14"):
            detect(HardwareConfig(**keys))


def test_several_processes_need_a_system_that_ends_groups_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(UserError, match="several processes need Linux or macOS"):
        device_of(HardwareConfig(device="cpu", processes=2))
