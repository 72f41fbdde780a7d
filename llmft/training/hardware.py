"""What the machine can do: the device, the numbers that it is fast in, and the reason, in a line to print."""

import os
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from llmft.schema.execution import HardwareConfig
from llmft.schema.problem import Problem, UserError


@dataclass(frozen=True)
class Hardware:
    """Where and in which numbers a run computes."""

    device: str
    precision: str
    reason: str
    """Why this precision, in a few words."""
    processes: int = 1
    nodes: int = 1
    strategy: str = "ddp"

    @property
    def threads(self) -> int:
        """Threads of each process: those of a machine share its cores."""
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
    """The device that a configuration means on this machine. CUDA is not started: a sweep forks after it has asked.

    Raises:
        UserError: for a GPU that is not there, more processes than GPUs or than the system can start, or a precision
            that the device does not have.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    device = next(name for name in there if there[name]) if config.device == "auto" else config.device
    if not there[device]:
        what = "there is no GPU here" if device == "cuda" else "this machine has no GPU that torch reaches by Metal"
        raise UserError(Problem("hardware.device", what, hint="Write hardware.device=auto."))
    if config.strategy == "deepspeed" and find_spec("deepspeed") is None:
        hint = "Install it: pip install deepspeed. Or write hardware.strategy=fsdp."
        raise UserError(Problem("hardware.strategy", "deepspeed is not installed", hint=hint))
    if config.precision == "fp16" and device != "cuda":
        what = "fp16 needs a GPU" if device == "cpu" else "fp16 needs an NVIDIA or AMD GPU"
        raise UserError(Problem("hardware.precision", what, hint="Write hardware.precision=auto."))
    if config.precision == "bf16" and device == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        hint = "Write hardware.precision=fp32."
        raise UserError(Problem("hardware.precision", "bf16 on the GPU of a Mac needs macOS 14 or newer", hint=hint))
    if config.processes > 1 and device == "mps":
        hint = "Write hardware.processes=1, or hardware.device=cpu."
        raise UserError(Problem("hardware.processes", "a Mac has one GPU, and each process takes one", hint=hint))
    if config.processes > 1 and not hasattr(os, "killpg"):
        hint = "Write hardware.processes=1, or run it in WSL."
        raise UserError(Problem("hardware.processes", "several processes need Linux or macOS", hint=hint))
    if device == "cuda" and config.processes > torch.cuda.device_count() * config.nodes:
        what = f"there are {torch.cuda.device_count()} GPUs here"
        raise UserError(Problem("hardware.processes", what, hint="Each process takes one of its own."))
    return device


def detect(config: HardwareConfig) -> Hardware:
    """The device and precision that a configuration means on this machine.

    bf16 is chosen only where the chip computes in it. A CPU that merely knows the type emulates it, and is slower
    than in float32; `torch.ops.mkldnn._is_mkldnn_bf16_supported` is true for both. The GPU of a Mac gets float32:
    whether bfloat16 is faster there has not been measured.

    Raises:
        UserError: as `device_of` does.
    """
    device = device_of(config)
    return Hardware(device, *_precision(config, device), config.processes, config.nodes, config.strategy)


def _precision(config: HardwareConfig, device: str) -> tuple[str, str]:
    """The precision and why."""
    if config.precision != "auto":
        return config.precision, "as asked for"
    native, reason = bfloat16(device)
    return "bf16" if native else "fp32", reason


def bfloat16(device: str) -> tuple[bool, str]:
    """Whether the chip computes in bfloat16, and how one knows."""
    if device == "cuda":
        native = torch.cuda.get_device_capability() >= (8, 0)
        return native, f"this GPU has {'' if native else 'no '}bfloat16"
    if device == "mps":
        return False, "bfloat16 has not been measured on the GPU of a Mac"
    capabilities = torch.cpu.get_capabilities()
    found = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if capabilities.get(name)]
    if found:
        return True, f"this processor has {found[0]}"
    return False, "this processor has no bfloat16 of its own"
