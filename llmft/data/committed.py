"""Folders that are valid only when complete: a manifest with sizes and sha256, written after all files are on disk."""

import json
import os
from pathlib import Path

from llmft.data.files import digest

MANIFEST = "committed.json"


def commit(folder: Path) -> None:
    """Sync every file in `folder` to the disk, then write the manifest with their sizes and sha256.

    Raises:
        OSError: if the disk fails. The folder is then not valid.
    """
    set_file_modes(folder)
    facts = {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST):
        _sync(file)
        facts[file.relative_to(folder).as_posix()] = [file.stat().st_size, digest(file)]
    partial = folder / f".{MANIFEST}.part"
    with partial.open("w", encoding="utf-8") as stream:
        json.dump({"format": 1, "files": facts}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(folder / MANIFEST)
    for path in (folder, folder.parent):
        _sync(path)


def set_file_modes(folder: Path) -> None:
    """Give weights in `folder` the mode of any new file: safetensors creates them with 0600, for their owner only."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o666 & ~umask)


def _sync(path: Path) -> None:
    if os.name == "nt":  # Windows opens no directory, and syncs only what is open for writing
        if path.is_file():
            with path.open("r+b") as stream:
                os.fsync(stream.fileno())
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fault(folder: Path) -> str:
    """Why a folder is not valid, in a few words that follow its name; empty if it is."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return "was not finished"
    except OSError as error:
        return f"has an unreadable {MANIFEST}: {error.strerror}"
    except (ValueError, KeyError):
        return f"has a broken {MANIFEST}"
    return next((why for name, (size, sha256) in files.items() if (why := _fault(folder, name, size, sha256))), "")


def _fault(folder: Path, name: str, size: int, sha256: str) -> str:
    file = folder / name
    try:
        if not file.is_file():
            return f"lacks {name}"
        if file.stat().st_size != size:
            return f"has {file.stat().st_size} bytes in {name} instead of {size}"
        if digest(file) != sha256:
            return f"has a changed {name}"
    except OSError as error:
        return f"has an unreadable {name}: {error.strerror}"
    return ""
