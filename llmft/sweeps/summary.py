"""What came of a sweep, the best first: RUN/summary.json, and best.yaml, a recipe that runs."""

import json
from statistics import mean, stdev
from typing import Any

from llmft.runs.folder import Run, as_recipe
from llmft.runs.index import SUMMARY
from llmft.schema.metric import METRICS
from llmft.sweeps.layout import Entry, Sweep

FOLD = "dataset.fold"


def write_summary(sweep: Sweep, more: dict[str, Any] | None = None, at_work: bool = False) -> dict[str, Any]:
    """Write summary.json, with `more`, and once a job is the best, best.yaml; return what summary.json says.

    Of settings that were tried on folds, best.yaml holds the settings: it trains one model, without folds.

    Args:
        at_work: whether further jobs may follow. best.yaml then holds every key: the short recipe that replaces it at
            the end takes 0.4 s, since it is composed to see that it means the same.
    """
    facts = summarise(sweep) | (more or {})
    folder = Run(sweep.folder)
    folder.write_json(SUMMARY, facts)
    for entry in sweep.entries:
        if entry.folder.name == facts["best"]:
            whole = entry.config.dataset.model_copy(update={"folds": None, "fold": None})
            write = (not at_work and entry.job.recipe) or as_recipe
            folder.write_text("best.yaml", write(entry.config.model_copy(update={"dataset": whole})))
    return facts


def summarise(sweep: Sweep) -> dict[str, Any]:
    """The facts of a sweep: of the jobs that the command named, whatever else the folder holds.

    `jobs` has them in the order of the words, `ranking` by their score, where those that differ by their seed or fold
    alone are one: mean, sample standard deviation and number of runs, of every metric under `scores`. The score is
    the metric that picks a job's best checkpoint, on validation, or on test where no job has validation rows. Jobs of
    different tasks or metrics are ranked among their own, and none is the best of all; nor is one fold among others.
    """
    jobs = [_facts(entry) for entry in sweep.entries]
    split = "validation" if any(job["validation"] for job in jobs) else "test"
    kinds = list(dict.fromkeys((job["task"], job["metric"]) for job in jobs))
    groups: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        groups.setdefault(json.dumps([job["task"], job["metric"], _settings(job)]), []).append(job)
    ranking = [_group(members) for members in groups.values()]
    ranking.sort(key=lambda group: (kinds.index((group["task"], group["metric"])), _rank(group, split)))
    best = None
    chosen = len(ranking) > 1 or not any(FOLD in job["values"] for job in jobs)
    if len(kinds) == 1 and chosen and ranking[0][split]:
        members = [job for job in jobs if job["folder"] in ranking[0]["folders"]]
        best = min(members, key=lambda job: _rank(_group([job]), split))["folder"]
    return {"format": 1, "split": split, "best": best, "ranking": ranking, "jobs": jobs} | _baseline(jobs)


def _facts(entry: Entry) -> dict[str, Any]:
    """One job: its values, how it ended, and its scores."""
    file = entry.folder / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8")) if entry.status == "done" else {}
    return {
        "folder": entry.folder.name,
        "values": entry.job.values,
        "status": entry.status,
        "reason": entry.reason or None,
        "task": entry.config.task.name,
        "metric": entry.config.metric_for_best,
        "seconds": metrics["train"]["total_seconds"] if metrics else None,
        "baseline": metrics.get("baseline"),
        "validation": metrics.get("validation"),
        "test": metrics.get("test"),
    }


def _baseline(jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Under `baseline` its name, and by split the spread of its scores over the sets of rows that it was fitted to."""
    found = [job["baseline"] for job in jobs if job["baseline"]]
    if not found:
        return {}
    scores = {split: _spreads(found, split) for split in ("validation", "test")}
    return {"baseline": {"name": found[0]["name"], **scores}}


def _group(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Jobs that differ by their seed or fold alone."""
    seconds = [job["seconds"] for job in members if job["seconds"] is not None]
    return {
        "values": _settings(members[0]),
        "task": members[0]["task"],
        "metric": members[0]["metric"],
        "validation": _spread(members, "validation", members[0]["metric"]),
        "test": _spread(members, "test", members[0]["metric"]),
        "scores": {split: _spreads(members, split) for split in ("validation", "test")},
        "seconds": mean(seconds) if seconds else None,
        "folders": [job["folder"] for job in members],
    }


def _settings(job: dict[str, Any]) -> dict[str, Any]:
    """What was chosen for a job; its seed and its fold are chance."""
    return {key: value for key, value in job["values"].items() if key not in ("seed", FOLD)}


def _spreads(members: list[dict[str, Any]], split: str) -> dict[str, Any]:
    """The spread of every metric that is a number."""
    names = dict.fromkeys(name for job in members for name, value in (job[split] or {}).items() if _is_score(value))
    return {name: _spread(members, split, name) for name in names}


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spread(members: list[dict[str, Any]], split: str, metric: str) -> dict[str, Any] | None:
    """Mean, sample standard deviation and count of the members' scores; None where no member has one."""
    found = [score for job in members if (score := (job[split] or {}).get(metric)) is not None]
    return {"mean": mean(found), "sd": stdev(found) if len(found) > 1 else None, "count": len(found)} if found else None


def _rank(group: dict[str, Any], split: str) -> tuple[bool, bool, float, float]:
    """Sorts the best first, of equal scores the one with the smaller loss.

    After them come what lacks a seed or a fold (perhaps the worst), and last what has no score.
    """
    if not group[split]:
        return True, True, 0.0, 0.0
    score = group[split]["mean"]
    loss = group["scores"][split].get("loss", {"mean": 0.0})["mean"]
    return False, group[split]["count"] < len(group["folders"]), -score if METRICS[group["metric"]] else score, loss
