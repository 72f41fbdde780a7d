"""The runs that `llmft eval RUN RUN ...` names, and whether they can answer together."""

import json
from pathlib import Path
from typing import Any

from llmft.runs.index import ROOT, SUMMARY, find_run, is_run
from llmft.schema.problem import Problem, UserError

APART = ("name", "cache")  # of the section `dataset`, what does not decide which rows a run has seen


def members(words: list[str], sweeps: bool) -> list[Path]:
    """The run folders that the words mean, each as `find_run` finds it.

    Args:
        sweeps: whether the folder of a sweep, of folds or of a search means all its finished runs, and not the best.

    Raises:
        UserError: for a word that means no run, a sweep without a finished one, and a run that is named twice.
    """
    found: list[Path] = []
    for word in words:
        folder = Path(word) if Path(word).exists() else ROOT / word
        summary = folder / SUMMARY
        if not sweeps or is_run(folder) or not summary.is_file():
            found.append(find_run(word))
            continue
        jobs = json.loads(summary.read_text(encoding="utf-8"))["jobs"]
        done = [folder / job["folder"] for job in jobs if job["status"] == "done"]
        if not done:
            raise UserError(Problem(str(folder), "is a sweep, and none of its runs is done", "command line"))
        found += done
    places = [folder.resolve() for folder in found]
    if twice := [folder for folder, place in zip(found, places, strict=True) if places.count(place) > 1]:
        raise UserError(Problem(str(twice[-1]), "is named twice, and would count twice", "command line"))
    return found


def differences(runs: list[Path], trees: list[dict[str, Any]], other_data: bool) -> list[Problem]:
    """Why the runs can't be scored together: another task, texts that are mended otherwise, or rows of which some runs
    have seen those to be scored.

    Args:
        trees: the configuration of each run.
        other_data: whether the command line names the rows; then it is for the user to say that no run has seen them.
    """
    first, others = trees[0], list(zip(runs, trees, strict=True))[1:]
    problems = [
        Problem(str(run), f"has task.{key} {found}, and {runs[0]} has {wanted}", "command line")
        for key in ("name", "problem")
        for run, tree in others
        if (found := tree["task"].get(key)) != (wanted := first["task"].get(key))
    ]
    problems += [
        Problem(str(run), f"has dataset.clean.{key} {found}, and {runs[0]} has {wanted}", "command line")
        for key in ("unicode", "normalize")
        for run, tree in others
        if (found := _mended(tree, key)) != (wanted := _mended(first, key))
    ]
    if problems or other_data:
        return problems
    apart = [(run, changed) for run, tree in others if (changed := _changed(first["dataset"], tree["dataset"]))]
    if not apart:
        return []
    run, (key, before, now) = apart[0]
    more = f", as were {len(apart) - 1} more" if len(apart) > 1 else ""
    what = (
        f"was trained on other rows{more}, perhaps on those to be scored: dataset.{key} is {now}, in {runs[0]} {before}"
    )
    hint = "Name rows that no run has seen: dataset=csv dataset.test=NEW.csv."
    return [Problem(str(run), what, "command line", hint)]


def _mended(tree: dict[str, Any], key: str) -> Any:
    return (tree["dataset"].get("clean") or {}).get(key)


def _changed(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key that decides the rows and differs, with both values."""
    keys = sorted((before.keys() | now.keys()) - {*APART})
    return next(((key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)), None)
