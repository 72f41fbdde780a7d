"""Checkpoints that count: committed by a manifest that is published last, verified before they are used.

transformers writes a checkpoint file by file and takes the newest folder for the last one, whole or not; a bit that
flipped in its weights is loaded in silence.
"""

import json
import os
import re
import shutil
from pathlib import Path

from llmft.data.files import digest

MANIFEST = "committed.json"
FOLDER = re.compile(r"checkpoint-(\d+)")


def commit(checkpoint: Path) -> None:
    """Sync every file of a checkpoint to the disk, then publish their sizes and digests.

    Raises:
        OSError: if the disk does not take it; the checkpoint does not count then.
    """
    facts = {}
    for file in sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name != MANIFEST):
        _sync(file)
        facts[str(file.relative_to(checkpoint))] = [file.stat().st_size, digest(file)]
    partial = checkpoint / f".{MANIFEST}.part"
    with partial.open("w", encoding="utf-8") as stream:
        json.dump({"format": 1, "files": facts}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(checkpoint / MANIFEST)
    for folder in (checkpoint, checkpoint.parent):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fault(checkpoint: Path) -> str:
    """Why a checkpoint can't be used, or nothing."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return "was not finished"
    except (ValueError, KeyError):
        return f"has a broken {MANIFEST}"
    for name, (size, sha256) in files.items():
        file = checkpoint / name
        if not file.is_file():
            return f"lacks {name}"
        if file.stat().st_size != size:
            return f"has {file.stat().st_size} bytes in {name} instead of {size}"
        if digest(file) != sha256:
            return f"has a changed {name}"
    return ""


def found(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, usable or not, the newest first."""
    steps = {path: int(m[1]) for path in folder.glob("checkpoint-*") if (m := FOLDER.fullmatch(path.name))}
    return sorted(steps, key=lambda path: -steps[path])


def latest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and a line on each newer one that does not."""
    passed_over: list[str] = []
    for checkpoint in found(folder):
        why = fault(checkpoint)
        if not why:
            return checkpoint, passed_over
        passed_over.append(f"{checkpoint.name} {why}")
    return None, passed_over


def rotate(folder: Path, keep: int, best: int | None) -> None:
    """Delete committed checkpoints but the newest `keep` and that of step `best`. What was not committed stays."""
    committed = [checkpoint for checkpoint in found(folder) if (checkpoint / MANIFEST).is_file()]
    for checkpoint in committed[keep:]:
        if checkpoint.name != f"checkpoint-{best}":
            # First the manifest: a checkpoint that is half gone does not count.
            (checkpoint / MANIFEST).unlink()
            shutil.rmtree(checkpoint)
