"""What the machine can do: the device, the numbers that it is fast in, and the reason, in a line to print."""

from dataclasses import dataclass
from importlib.util import find_spec

import torch

from llmft.schema.problem import Problem, UserError
from llmft.schema.trainer import HardwareConfig


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
        else:
            name = f"cpu, {self.processes} processes of {threads}" if many else f"cpu, {threads}"
        name += f" on {self.nodes} nodes" if self.nodes > 1 else ""
        name += f", {self.strategy}" if self.strategy != "ddp" else ""
        return f"{name}, {self.precision} ({self.reason})"


def device_of(config: HardwareConfig) -> str:
    """The device that a configuration means on this machine. CUDA is not started: a sweep forks after it has asked.

    Raises:
        UserError: for a GPU that is not there, more processes than GPUs, or fp16 on a CPU.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError(Problem("hardware.device", "there is no GPU here", hint="Write hardware.device=auto."))
    if config.strategy == "deepspeed" and find_spec("deepspeed") is None:
        hint = "Install it: pip install deepspeed. Or write hardware.strategy=fsdp."
        raise UserError(Problem("hardware.strategy", "deepspeed is not installed", hint=hint))
    device = "cpu" if config.device == "cpu" or not torch.cuda.is_available() else "cuda"
    if config.precision == "fp16" and device == "cpu":
        raise UserError(Problem("hardware.precision", "fp16 needs a GPU", hint="Write hardware.precision=auto."))
    if device == "cuda" and config.processes > torch.cuda.device_count() * config.nodes:
        what = f"there are {torch.cuda.device_count()} GPUs here"
        raise UserError(Problem("hardware.processes", what, hint="Each process takes one of its own."))
    return device


def detect(config: HardwareConfig) -> Hardware:
    """The device and precision that a configuration means on this machine.

    bf16 is chosen only where the chip computes in it. A CPU that merely knows the type emulates it, and is slower
    than in float32; `torch.ops.mkldnn._is_mkldnn_bf16_supported` is true for both.

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
    capabilities = torch.cpu.get_capabilities()
    found = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if capabilities.get(name)]
    if found:
        return True, f"this processor has {found[0]}"
    return False, "this processor has no bfloat16 of its own"
