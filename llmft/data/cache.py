"""The cache: entries named by everything that they depend on, published atomically, bounded in size.

An entry is a folder `KIND/KEY` of the cache. It is written under a hidden name, committed by a manifest with sha256 of
its files, and renamed. So a reader finds a complete entry or none, of two writers one wins, and a damaged file is
detected.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmft.data.committed import MANIFEST, commit, fault

FACTS = "facts.json"
HOME, SIZE = "LLMFT_CACHE", "LLMFT_CACHE_GB"
GIGABYTES = 20.0
KEY, HIDDEN = re.compile("[0-9a-f]{32}"), re.compile(r"\.[0-9a-f]{32}-[0-9a-f]{8}")
SHOWN = 5  # differences from the nearest entry that a note lists
FORGOTTEN = 24 * 3600  # seconds after which a hidden folder must be from a process that died


def cache_dir() -> Path:
    """The folder of the cache: `$LLMFT_CACHE`, or `llmft` in the user's cache folder."""
    if place := os.environ.get(HOME):
        return Path(place)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "llmft"


class NotKept(Exception):
    """Raised by what fills an entry, to say that it shall not be kept; the message is the reason."""


@dataclass(frozen=True)
class Entry:
    """An entry of the cache, whether it exists or not."""

    kind: str
    """Its folder in the cache, such as `frozen`."""
    facts: dict[str, str]
    """Everything that it depends on, by readable names: `file PATH` for files, `tokenizer NAME`, or keys."""

    @property
    def key(self) -> str:
        """The name of its folder: the start of the sha256 of its facts."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def folder(self) -> Path:
        """The path of its folder."""
        return cache_dir() / self.kind / self.key

    def found(self) -> bool:
        """Whether it exists and every file hashes to its digest. A damaged entry is removed."""
        if not self.folder.is_dir():
            return False
        try:
            broken = fault(self.folder)
            if not broken:
                os.utime(self.folder / MANIFEST)  # its time of last use, for `make_room`
                return True
        except OSError:  # another process is removing it to make room
            return False
        remove(self.folder)
        return False

    def why_missing(self) -> str:
        """A note on how this entry differs from the most similar one of its kind: why it must be computed."""
        nearest: dict[str, str] = {}
        for file in (cache_dir() / self.kind).glob(f"*/{FACTS}"):
            try:
                facts = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if _shared(facts, self.facts) > _shared(nearest, self.facts):
                nearest = facts
        if not any(name in nearest for name in self.facts if name.startswith("file ")):
            return "seen for the first time"
        names = sorted(name for name in nearest.keys() | self.facts if nearest.get(name) != self.facts.get(name))
        short = list(dict.fromkeys(map(_short, names)))
        rest = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
        return f"changed: {', '.join(short[:SHOWN])}{rest}"

    def publish(self, write: Callable[[Path], None]) -> bool:
        """Let `write` fill a folder, and make it the entry.

        Returns:
            whether the entry exists; False if the disk is full or read-only, or `write` raised NotKept, and the run
            continues without it.
        """
        partial = self.folder.with_name(f".{self.key}-{secrets.token_hex(4)}")
        try:
            partial.mkdir(parents=True)
            write(partial)
            (partial / FACTS).write_text(json.dumps(self.facts, ensure_ascii=False, indent=1), encoding="utf-8")
            commit(partial)
            try:
                partial.rename(self.folder)
            except OSError:  # another process was first, and its entry has the same content
                shutil.rmtree(partial)
        except (OSError, NotKept):
            shutil.rmtree(partial, ignore_errors=True)
            return False
        except BaseException:  # an error of `write` itself, or Ctrl-C
            shutil.rmtree(partial, ignore_errors=True)
            raise
        make_room(keep=self.folder)
        return self.folder.is_dir()


def _short(fact: str) -> str:
    """The short name of a fact: a file without its folder, and all facts of a tokenizer as one."""
    if fact.startswith("file "):
        return Path(fact.removeprefix("file ")).name
    return "tokenizer" if fact.startswith("tokenizer ") else fact


def _shared(one: dict[str, str], other: dict[str, str]) -> int:
    return sum(other.get(name) == value for name, value in one.items())


def list_entries() -> list[tuple[float, int, Path]]:
    """Time of last use (seconds since 1970), bytes, and folder of each entry, the oldest first.

    Other files in the cache folder are left alone. Hidden folders of processes that died are removed.
    """
    now = time.time()
    entries = []
    for folder in cache_dir().glob("*/*"):
        try:
            if HIDDEN.fullmatch(folder.name):
                if now - folder.stat().st_mtime > FORGOTTEN:
                    shutil.rmtree(folder, ignore_errors=True)
            elif KEY.fullmatch(folder.name) and (folder / FACTS).is_file():
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                entries.append(((folder / MANIFEST).stat().st_mtime, size, folder))
        except OSError:  # another process is removing entries too
            continue
    return sorted(entries)


def limit_in_bytes() -> float:
    """The most that the cache holds: `$LLMFT_CACHE_GB`."""
    return float(os.environ.get(SIZE) or GIGABYTES) * 1e9


def make_room(keep: Path) -> None:
    """Remove the least recently used entries until the cache fits its limit, except `keep`, which is new."""
    limit = limit_in_bytes()
    entries = list_entries()
    total = sum(size for _, size, _ in entries)
    for _, size, folder in entries:
        if total <= limit:
            return
        if folder != keep:
            remove(folder)
            total -= size


def remove(folder: Path) -> None:
    """Remove an entry. Processes that have memory-mapped its files can still read them."""
    # Renamed first: a reader must never find a folder that is half deleted.
    hidden = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        folder.rename(hidden)
    except OSError:
        return
    shutil.rmtree(hidden, ignore_errors=True)
