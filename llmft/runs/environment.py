"""What a run ran on: versions, git, hardware. No environment variables, no user names, no secrets."""

import os
import platform
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "llmft",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "evaluate",
    "tokenizers",
    "hydra-core",
    "numpy",
    "scikit-learn",
)


def environment() -> dict[str, Any]:
    """Versions, the state of the working tree's git, and the machine."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "git": _git(),
        "machine": {
            "processor": _processor(),
            "cores": psutil.cpu_count(logical=False),
            "memory_bytes": psutil.virtual_memory().total,
        },
    }


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """The commit of the working directory, and whether files differ from it; None outside a repository."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout
        status = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(status.strip())}


@cache
def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as stream:
            return next(
                (line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")),
                platform.machine(),
            )
    except OSError:
        return platform.processor() or platform.machine()


STARTED = "LLMFT_STARTED"
"""The environment variable by which the processes of a run know when its command started, in seconds since 1970."""
_called: dict[int, float] = {}  # process id -> when Python last called a command in it; a forked job has another id


def start_clock() -> None:
    """Count `seconds_since_start` from now: for a command that Python calls, in a process that may be hours old."""
    _called[os.getpid()] = time.time()


def seconds_since_start() -> float:
    """Seconds since the command started: since this process did, imports included, or since Python called it.

    For one of several processes, since the command that started them.
    """
    if started := os.environ.get(STARTED):
        return time.time() - float(started)
    if called := _called.get(os.getpid()):
        return time.time() - called
    process = psutil.Process()
    first = process.parent() if "LOCAL_RANK" in os.environ else None  # started by torchrun
    return time.time() - (first or process).create_time()


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes; of the GPU's memory, where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows, where psutil knows the peak
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
