"""Work that need not be done twice: entries named by what went into them, published whole, bounded in size.

An entry is a folder `KIND/KEY` below the cache. It is written under a hidden name, committed by a manifest of digests
and renamed: a reader finds a whole entry or none, and of two writers of the same entry one wins. What a flipped bit
changed is not used.
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
SHOWN = 5  # differences from the nearest entry that are named
FORGOTTEN = 24 * 3600  # seconds after which a hidden folder was left by a process that died


def home() -> Path:
    """The folder of the cache: `$LLMFT_CACHE`, or `llmft` in the user's cache folder."""
    if place := os.environ.get(HOME):
        return Path(place)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "llmft"


@dataclass(frozen=True)
class Entry:
    """Something that was worked out, or is to be."""

    kind: str
    """What it is, a folder of the cache."""
    facts: dict[str, str]
    """All that it depends on, by names that a person understands; files are called `file PATH`."""

    @property
    def key(self) -> str:
        """The name of its folder."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def folder(self) -> Path:
        """Where it is, once it is there."""
        return home() / self.kind / self.key

    def found(self) -> bool:
        """Whether it is there and whole. A broken one is put out of the way."""
        if not self.folder.is_dir():
            return False
        try:
            broken = fault(self.folder)
            if not broken:
                os.utime(self.folder / MANIFEST)  # used last now
                return True
        except OSError:  # somebody is making room
            return False
        remove(self.folder)
        return False

    def why_missing(self) -> str:
        """What the nearest entry of its kind has other than this one."""
        nearest: dict[str, str] = {}
        for file in (home() / self.kind).glob(f"*/{FACTS}"):
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
        """Let `write` fill a folder and make it the entry; False where the disk does not take it."""
        partial = self.folder.with_name(f".{self.key}-{secrets.token_hex(4)}")
        try:
            partial.mkdir(parents=True)
            write(partial)
            (partial / FACTS).write_text(json.dumps(self.facts, ensure_ascii=False, indent=1), encoding="utf-8")
            commit(partial)
            try:
                partial.rename(self.folder)
            except OSError:  # another process was first; its entry is as good
                shutil.rmtree(partial)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            return False
        except BaseException:  # what `write` found wrong
            shutil.rmtree(partial, ignore_errors=True)
            raise
        make_room(keep=self.folder)
        return self.folder.is_dir()


def _short(fact: str) -> str:
    """The name of a fact as a person reads it: files without their folders, those of a tokenizer as one."""
    if fact.startswith("file "):
        return Path(fact.removeprefix("file ")).name
    return "tokenizer" if fact.startswith("tokenizer ") else fact


def _shared(one: dict[str, str], other: dict[str, str]) -> int:
    return sum(other.get(name) == value for name, value in one.items())


def kept() -> list[tuple[float, int, Path]]:
    """When each entry was used last, in seconds since 1970, its bytes, and its folder.

    Only what bears the name of an entry is told: the folder may hold other things. What a process that died had half
    written is removed.
    """
    now = time.time()
    entries = []
    for folder in home().glob("*/*"):
        try:
            if HIDDEN.fullmatch(folder.name):
                if now - folder.stat().st_mtime > FORGOTTEN:
                    shutil.rmtree(folder, ignore_errors=True)
            elif KEY.fullmatch(folder.name) and (folder / FACTS).is_file():
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                entries.append(((folder / MANIFEST).stat().st_mtime, size, folder))
        except OSError:  # another process is making room too
            continue
    return sorted(entries)


def make_room(keep: Path) -> None:
    """Remove the entries that were used longest ago until the cache fits, but not `keep`, the one just made."""
    limit = float(os.environ.get(SIZE) or GIGABYTES) * 1e9
    entries = kept()
    total = sum(size for _, size, _ in entries)
    for _, size, folder in entries:
        if total <= limit:
            return
        if folder != keep:
            remove(folder)
            total -= size


def remove(folder: Path) -> None:
    """Remove an entry; what others have mapped into memory stays readable to them."""
    hidden = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        folder.rename(hidden)
    except OSError:
        return
    shutil.rmtree(hidden, ignore_errors=True)
