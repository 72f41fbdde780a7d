"""What a run ran on: versions, git, hardware. No environment variables, no user names, no secrets."""

import os
import platform
import subprocess
import sys
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


def seconds_since_start() -> float:
    """Seconds since this process started, imports included; for one of several, since that which started them."""
    import time

    process = psutil.Process()
    first = process.parent() if "LOCAL_RANK" in os.environ else None
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
