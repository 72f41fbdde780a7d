"""The device and precision of a run on this machine, and why, in a line to print."""

import os
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from llmft.schema.execution import HardwareConfig
from llmft.schema.problem import Problem, UserError


@dataclass(frozen=True)
class Hardware:
    """The device, precision, and processes of a run."""

    device: str
    precision: str
    reason: str
    """Why this precision, in a few words for the console."""
    processes: int = 1
    nodes: int = 1
    strategy: str = "ddp"

    @property
    def threads(self) -> int:
        """Threads of each process. The processes of one machine share its cores: more threads would only compete."""
        return max(1, torch.get_num_threads() * self.nodes // self.processes)

    def __str__(self) -> str:
        many = self.processes > 1
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        if self.device == "cuda":
            name = f"{self.processes} x {torch.cuda.get_device_name()}" if many else torch.cuda.get_device_name()
        elif self.device == "mps":
            name = "the GPU of this Mac (mps)"
        else:
            name = f"cpu, {self.processes} processes of {threads}" if many else f"cpu, {threads}"
        name += f" on {self.nodes} nodes" if self.nodes > 1 else ""
        name += f", {self.strategy}" if self.strategy != "ddp" else ""
        return f"{name}, {self.precision} ({self.reason})"


def device_of(config: HardwareConfig) -> str:
    """The device of a config on this machine: cpu, cuda, or mps.

    Does not initialize CUDA: a sweep forks its jobs after this call, and CUDA cannot be used in a forked process.

    Raises:
        UserError: for a GPU that is not there, more processes than GPUs, several processes where the system cannot
            start them, or a precision that the device does not have.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    device = next(name for name in there if there[name]) if config.device == "auto" else config.device
    if not there[device]:
        kind = "no CUDA or ROCm GPU" if device == "cuda" else "no GPU through Metal"
        what = f"must be a device of this machine, got {device}: torch finds {kind} here"
        raise UserError(Problem("hardware.device", what, hint="Write hardware.device=auto."))
    if config.strategy == "deepspeed" and find_spec("deepspeed") is None:
        hint = "Install it: pip install deepspeed. Or write hardware.strategy=fsdp."
        raise UserError(Problem("hardware.strategy", "deepspeed is not installed", hint=hint))
    if config.precision == "fp16" and device != "cuda":
        what = f"must be bf16, fp32, or auto on {device}, got fp16: it needs an NVIDIA or AMD GPU"
        raise UserError(Problem("hardware.precision", what, hint="Write hardware.precision=auto."))
    if config.precision == "bf16" and device == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        hint = "Write hardware.precision=fp32."
        what = "must be fp32 or auto on this Mac, got bf16: on its GPU that needs macOS 14 or newer"
        raise UserError(Problem("hardware.precision", what, hint=hint))
    if config.processes > 1 and device == "mps":
        hint = "Write hardware.processes=1, or hardware.device=cpu."
        what = f"must be 1 on the GPU of a Mac, got {config.processes}: each process needs a GPU of its own"
        raise UserError(Problem("hardware.processes", what, hint=hint))
    if config.processes > 1 and not hasattr(os, "killpg"):
        hint = "Write hardware.processes=1, or run it in WSL."
        what = f"must be 1 on Windows, got {config.processes}: several processes need Linux or macOS"
        raise UserError(Problem("hardware.processes", what, hint=hint))
    if device == "cuda" and config.processes > (gpus := torch.cuda.device_count() * config.nodes):
        what = f"must be at most {gpus}, one for each GPU, got {config.processes}"
        raise UserError(Problem("hardware.processes", what, hint=f"Write hardware.processes={gpus}."))
    return device


def detect(config: HardwareConfig) -> Hardware:
    """The device and precision of a config on this machine.

    `precision=auto` is bf16 only where the chip computes in it. Other CPUs emulate it and are slower than in float32;
    `torch.ops.mkldnn._is_mkldnn_bf16_supported` is true for both. The GPU of a Mac gets float32: whether bfloat16 is
    faster there has not been measured.

    Raises:
        UserError: as `device_of` does.
    """
    device = device_of(config)
    return Hardware(device, *_precision(config, device), config.processes, config.nodes, config.strategy)


def _precision(config: HardwareConfig, device: str) -> tuple[str, str]:
    """The precision, and why."""
    if config.precision != "auto":
        return config.precision, "as asked for"
    native, reason = bfloat16(device)
    return "bf16" if native else "fp32", reason


def bfloat16(device: str) -> tuple[bool, str]:
    """Whether the chip of a device computes in bfloat16, and what tells."""
    if device == "cuda":
        # Compute capability 8.0 is Ampere (A100, 2020), the first with bfloat16 in its tensor cores.
        native = torch.cuda.get_device_capability() >= (8, 0)
        return native, f"this GPU has {'' if native else 'no '}bfloat16"
    if device == "mps":
        return False, "bfloat16 has not been measured on the GPU of a Mac"
    capabilities = torch.cpu.get_capabilities()
    found = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if capabilities.get(name)]
    if found:
        return True, f"this processor has {found[0]}"
    return False, "this processor has no bfloat16 of its own"
