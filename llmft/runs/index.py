"""Which runs there are, and which one a name means. Reads small files alone, and imports neither torch nor pydantic."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from llmft.runs.lock import is_held
from llmft.schema.command import COMMANDS
from llmft.schema.problem import Problem, UserError

ROOT = Path("outputs")
SUMMARY = "summary.json"  # of a sweep or a search
STAMP = re.compile(r"(\d{8}-\d{6})-[0-9a-f]{4}")
LISTED = 8  # runs or names in an error

# The parser in C reads a configuration in 4 ms, the one in Python in 40.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Entry:
    """A run folder, as its files describe it."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json; empty where there is none, or none that can be read."""
        return _read_json(self.folder / "manifest.json")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json; empty where the run has no scores."""
        return _read_json(self.folder / "metrics.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml as a plain tree, unchecked: a run of an earlier version has other keys."""
        try:
            tree = yaml.load((self.folder / "config.yaml").read_text(encoding="utf-8"), LOADER)
        except (OSError, UnicodeError, yaml.YAMLError):
            return {}
        return tree if isinstance(tree, dict) else {}

    @property
    def command(self) -> str:
        """The command that made it."""
        return str(self.manifest.get("command") or self.config.get("command"))

    @property
    def trains(self) -> bool:
        """Whether it made a model out of training rows."""
        return self.command in COMMANDS and COMMANDS[self.command].trains

    @property
    def status(self) -> str:
        """`done`, `failed`, `stopped`, `interrupted`, `pruned`, `begun`, `running`, or `killed`: it says that it is
        running, and no process holds it."""
        status = str(self.manifest.get("status", "running"))
        return "killed" if status == "running" and not self.is_held else status

    @property
    def is_held(self) -> bool:
        """Whether a process is at work in it."""
        return is_held(self.folder)

    @property
    def is_model(self) -> bool:
        """Whether it is a finished training run, which has a model."""
        return self.trains and self.manifest.get("status") == "done" and (self.folder / "model").is_dir()

    @property
    def began(self) -> datetime:
        """When it began: by its folder's name, or by when its configuration was written. Local time."""
        if found := STAMP.fullmatch(self.folder.name):
            return datetime.strptime(found[1], "%Y%m%d-%H%M%S")
        return datetime.fromtimestamp((self.folder / "config.yaml").stat().st_mtime)

    def __str__(self) -> str:
        return f"{self.folder.name} ({self.command}, {self.status})"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_run(folder: Path) -> bool:
    """Whether a folder is that of one run."""
    return (folder / "config.yaml").is_file()


def entries(folder: Path, depth: int = 1) -> list[Entry]:
    """The runs below a folder, at most `depth` folders down, the newest first. Hidden folders are not looked into."""

    def below(parent: Path, left: int) -> Iterator[Entry]:
        for child in parent.iterdir():
            if child.name.startswith(".") or not child.is_dir():
                continue
            if is_run(child):
                yield Entry(child)
            elif left > 1:
                yield from below(child, left - 1)

    found = list(below(folder, depth)) if folder.is_dir() else []
    return sorted(found, key=lambda entry: (entry.began, entry.folder), reverse=True)


def find_run(word: str) -> Path:
    """The run folder that a word means.

    A path that exists wins: a run, or a folder of runs such as `outputs/tickets`. Else it is a name below `outputs`,
    `tickets`, or a run there, `tickets/20261130-055253-18b4`. A folder of runs means the newest finished training run
    in it, and that of a sweep its best run.

    Raises:
        UserError: for no such folder, with the nearest names, and for a folder without such a run, with those there.
    """
    path = Path(word)
    for folder in (path, ROOT / path):
        if is_run(folder):
            return folder
        if folder.is_dir():
            return _best(folder) if (folder / SUMMARY).is_file() else _newest(folder)
    raise UserError(Problem(word, "no such folder, and no run of this name", "command line", nearest_names(word)))


def nearest_names(word: str) -> str:
    """A hint with the names of runs that are spelt most like a word, or with all names."""
    found = [folder.name for folder in ROOT.iterdir() if folder.is_dir()] if ROOT.is_dir() else []
    names = sorted(name for name in found if name != word)
    if not names:
        return ""
    if nearest := get_close_matches(word.rstrip("/").rpartition("/")[2], names, 3):
        return f"Did you mean {' or '.join(nearest)}?"
    return f"{ROOT} has {_listed(names)}."


def _newest(folder: Path) -> Path:
    there = entries(folder)
    if found := next((entry for entry in there if entry.is_model), None):
        return found.folder
    sweeps = sorted(file.parent.name for file in folder.glob(f"*/{SUMMARY}"))
    if not there and not sweeps:
        raise UserError(Problem(str(folder), "is not a run: it has no config.yaml", "command line"))
    what = (
        f"has no finished training run; it has {_listed([*map(str, there), *(f'{name} (a sweep)' for name in sweeps)])}"
    )
    hint = f"{folder}/{sweeps[-1]} means the best run of the sweep." if sweeps else ""
    raise UserError(Problem(str(folder), what, "command line", hint))


def _best(folder: Path) -> Path:
    """The best run of a sweep or a search, as its summary says it."""
    facts = _read_json(folder / SUMMARY)
    if facts.get("best"):
        return folder / str(facts["best"])
    done = [str(job["folder"]) for job in facts.get("jobs", []) if job.get("status") == "done"]
    if not done:
        raise UserError(Problem(str(folder), "is a sweep, and none of its runs is done", "command line"))
    what = f"is a sweep without a best run; it has {_listed(done)}"
    raise UserError(Problem(str(folder), what, "command line", f"Name one: {folder}/{done[0]}."))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def model_path(path: str) -> str:
    """`model.path` with the run that it names, as `find_run` finds it; what names no run stays, such as a hub id.

    Raises:
        UserError: for a folder of runs without a finished one.
    """
    folder = Path(path)
    if not folder.exists():
        return str(find_run(path)) if (ROOT / folder).is_dir() else path
    named = not is_run(folder) and ((folder / SUMMARY).is_file() or (folder.is_dir() and entries(folder)))
    return str(find_run(path)) if named and not (folder / "config.json").is_file() else path


def title(folder: Path) -> str:
    """What a run is called: the last two names of its folder, such as `tickets/20261130-055253-18b4`."""
    return "/".join([name for name in folder.parts if name not in ("..", folder.anchor)][-2:])
