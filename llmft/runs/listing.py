"""Lists runs for `llmft runs`, and finds files that can be removed. Reads files only, and imports no torch."""

import re
import shutil
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llmft.data import cache
from llmft.runs.index import Entry, entries
from llmft.schema.dataset import display_name
from llmft.schema.metric import METRICS
from llmft.schema.problem import Problem, UserError

DEPTH = 3  # outputs/NAME/SWEEP/JOB
FILTERS = ("name", "command", "status", "model", "data")
SORTS = ("when", "size", "name")
UNFINISHED = ("failed", "stopped", "interrupted", "killed")
HALF = re.compile(r"\..+(-[0-9a-f]{8}|\.part|\.removed)")  # see `whole` and Run.write_text in folder.py, and `remove`
DAYS = 30  # age from which an unfinished run is not expected to be resumed


def listing(root: Path, words: list[str], filters: dict[str, str], sort: str) -> list[dict[str, Any]]:
    """The runs below a folder that contain all words and match all filters.

    Args:
        words: parts of a name, command, status, model or data, whatever their case.
        filters: by FILTERS, what the whole of it must be; `name` is also the first folder of a run below `root`.
        sort: `when` (the newest first), `size` (the largest), `name`, or a metric (the best).

    Raises:
        UserError: for a sort that is neither of these nor a metric of any run.
    """
    records = [record(entry, root) for entry in entries(root, DEPTH)] if root.is_dir() else []
    found = [one for one in records if _matches(one, words, filters)]
    if sort in SORTS:
        keys = {"when": lambda one: one["when"], "size": lambda one: one["bytes"], "name": lambda one: one["run"]}
        return sorted(found, key=keys[sort], reverse=sort != "name")
    for one in found:
        # Test before validation, which picked the checkpoint, and is too good for that reason.
        split = next((name for name in ("test", "validation") if sort in one["scores"].get(name, {})), None)
        one |= {"metric": sort, "split": split, "score": one["scores"][split][sort] if split else None}
    if found and all(one["score"] is None for one in found):
        known = sorted({name for one in records for scores in one["scores"].values() for name in scores})
        nearest = get_close_matches(sort, [*known, *SORTS], 1)
        hint = f"Did you mean sort={nearest[0]}?" if nearest else f"Sort by {', '.join([*SORTS, *known])}."
        raise UserError(
            Problem(f"sort={sort}", "no run has a score of this name", "command line", hint), "this command"
        )
    # The best first; runs without the metric last, whatever its direction. Unknown metrics: more is better.
    sign = -1 if METRICS.get(sort, True) else 1
    return sorted(found, key=lambda one: (one["score"] is None, sign * (one["score"] or 0.0)))


def record(entry: Entry, root: Path) -> dict[str, Any]:
    """A run as one row of the list, with all its scores.

    `score` is that of `metric` on test, or on validation where there are no test rows; None for a run without one.
    """
    tree, metrics = entry.config, entry.metrics
    scores = {name: _numbers(metrics[name]) for name in metrics if name in ("validation", "test")}
    split = "test" if "test" in scores else "validation" if scores else None
    main = scores.get(split or "", {})
    metric = entry.manifest.get("metric") or _metric(tree, main)
    return {
        "run": str(entry.folder.relative_to(root)) if entry.folder.is_relative_to(root) else str(entry.folder),
        "folder": str(entry.folder),
        "when": entry.began.isoformat(sep=" ", timespec="seconds"),
        "command": entry.command,
        "status": entry.status,
        "name": tree.get("name"),
        "model": _at(tree, "model", "name"),
        "data": _data(tree),
        "metric": metric,
        "split": split,
        "score": main.get(str(metric)),
        "scores": scores,
        "bytes": size(entry.folder),
    }


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if isinstance(value, float)}


def _metric(tree: dict[str, Any], scores: dict[str, float]) -> str | None:
    """The metric of a run whose manifest does not name it: the one that picked, or the first that is not a loss."""
    chosen = _at(tree, "trainer", "metric_for_best")
    return str(chosen) if chosen in scores else next((name for name in scores if name != "loss"), None)


def _at(tree: dict[str, Any], section: str, key: str) -> Any:
    found = tree.get(section)
    return found.get(key) if isinstance(found, dict) else None


def _data(tree: dict[str, Any]) -> str:
    """The name of the data, or, where they were given none, that of their first file."""
    name, form, place, train, test = (_at(tree, "dataset", key) for key in ("name", "format", "path", "train", "test"))
    return display_name(name, form, place, train or test)


def _matches(one: dict[str, Any], words: list[str], filters: dict[str, str]) -> bool:
    shown = " ".join(str(one[key]) for key in ("run", *FILTERS)).casefold()
    names = {one["name"], one["run"].partition("/")[0]}
    whole = all(
        value in names if key == "name" else str(one[key]).casefold() == value.casefold()
        for key, value in filters.items()
    )
    return whole and all(word.casefold() in shown for word in words)


def size(folder: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def leftovers(root: Path, days: float = DAYS) -> list[dict[str, Any]]:
    """What takes room and is of no use any more: by `kind`, with the `folder` to remove, its `bytes`, and `why`.

    `checkpoints` of runs that are done; `unfinished` runs that began more than `days` days ago, and what a killed
    command had half written; the `cache` of prepared data, which later runs would make again. What a process is at
    work in is not among them, nor are runs that were asked to keep theirs.
    """
    found: list[dict[str, Any]] = []
    before = datetime.now() - timedelta(days=days)

    def add(kind: str, folder: Path, why: str) -> None:
        found.append({"kind": kind, "folder": str(folder), "bytes": size(folder), "why": why})

    for entry in entries(root, DEPTH):
        if entry.is_held:  # a process is at work there
            continue
        if entry.manifest.get("status") == "done" and (entry.folder / "checkpoints").is_dir():
            # A finished run has its best weights in model/: checkpoints are only needed to train on.
            if not _at(entry.config, "trainer", "keep_finished"):
                add("checkpoints", entry.folder / "checkpoints", "of a finished run")
        elif entry.trains and entry.status in UNFINISHED and entry.began < before:
            add("unfinished", entry.folder, f"{entry.status}, began {entry.began:%Y-%m-%d}")
    if root.is_dir():
        # Hidden folders that are still written are young: the age decides, since they have no lock.
        for hidden in sorted([*root.glob("*/.[!.]*"), *root.glob("*/*/.[!.]*")]):
            if HALF.fullmatch(hidden.name) and datetime.fromtimestamp(hidden.stat().st_mtime) < before:
                add("unfinished", hidden, "half written by a command that was killed")
    kept = cache.list_entries()
    if kept:
        count = "1 data set" if len(kept) == 1 else f"{len(kept)} data sets"
        found.append(
            {"kind": "cache", "folder": str(cache.cache_dir()), "bytes": sum(size for _, size, _ in kept), "why": count}
        )
    return found


def free(leftover: dict[str, Any]) -> None:
    """Remove what `leftovers` has found.

    Raises:
        OSError: if the disk does not let go of it.
    """
    if leftover["kind"] == "cache":
        for _, _, folder in cache.list_entries():
            cache.remove(folder)
        return
    remove(Path(leftover["folder"]))


def remove(folder: Path) -> None:
    """Remove a folder or a file. A folder is renamed first, so that nobody takes half of a run for a run."""
    if not folder.is_dir():
        folder.unlink()
        return
    hidden = folder.with_name(f".{folder.name}.removed")
    folder.rename(hidden)
    shutil.rmtree(hidden)
