"""The results of a sweep, ranked: summary.json, and best.yaml, a recipe of the best job."""

import json
from statistics import mean, stdev
from typing import Any

from llmft.runs.folder import Run, as_recipe
from llmft.runs.index import SUMMARY
from llmft.schema.metric import METRICS
from llmft.sweeps.layout import Entry, Sweep

FOLD = "dataset.fold"


def write_summary(sweep: Sweep, more: dict[str, Any] | None = None, at_work: bool = False) -> dict[str, Any]:
    """Write summary.json with the facts in `more`, and best.yaml once there is a best job; return the facts.

    If the best settings were tried on folds, best.yaml has the settings without folds: it trains one model on all rows.

    Args:
        at_work: whether further jobs may follow. best.yaml then holds every key: the short recipe that replaces it at
            the end takes 0.4 s, since it is composed to see that it means the same.
    """
    facts = summarize(sweep) | (more or {})
    folder = Run(sweep.folder)
    folder.write_json(SUMMARY, facts)
    for entry in sweep.entries:
        if entry.folder.name == facts["best"]:
            whole = entry.config.dataset.model_copy(update={"folds": None, "fold": None})
            write = (not at_work and entry.job.recipe) or as_recipe
            folder.write_text("best.yaml", write(entry.config.model_copy(update={"dataset": whole})))
    return facts


def summarize(sweep: Sweep) -> dict[str, Any]:
    """The facts of a sweep, about the jobs of the last command only, whatever else the folder contains.

    `jobs` has them in the order of the command, `ranking` by metric. Jobs that differ only in seed or fold are one
    entry of the ranking, with mean, sample standard deviation, and number of runs of every metric under `scores`. The
    metric is the one for the best checkpoint, on validation, or on test if no job has validation rows. Jobs of
    different tasks or metrics are ranked separately, and then there is no best job; nor is there among folds alone.
    """
    jobs = [_facts(entry) for entry in sweep.entries]
    split = "validation" if any(job["validation"] for job in jobs) else "test"
    # Accuracy of one task and RMSE of another have no common order: each kind is ranked by itself.
    kinds = list(dict.fromkeys((job["task"], job["metric"]) for job in jobs))
    groups: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        # As JSON, since a value may be a list or a dict, which cannot be a key.
        groups.setdefault(json.dumps([job["task"], job["metric"], _settings(job)]), []).append(job)
    ranking = [_group(members) for members in groups.values()]
    ranking.sort(key=lambda group: (kinds.index((group["task"], group["metric"])), _rank(group, split)))
    best = None
    # Folds of one setting differ in their test rows: the best of them is the easiest, not the best model.
    chosen = len(ranking) > 1 or not any(FOLD in job["values"] for job in jobs)
    if len(kinds) == 1 and chosen and ranking[0][split]:
        members = [job for job in jobs if job["folder"] in ranking[0]["folders"]]
        best = min(members, key=lambda job: _rank(_group([job]), split))["folder"]
    return {"format": 1, "split": split, "best": best, "ranking": ranking, "jobs": jobs} | _baseline(jobs)


def _facts(entry: Entry) -> dict[str, Any]:
    """The facts of one job: its values, how it ended, and its metrics."""
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
    """`baseline`: its name, and the spread of its metrics by split, over jobs; empty without a baseline."""
    found = [job["baseline"] for job in jobs if job["baseline"]]
    if not found:
        return {}
    scores = {split: _spreads(found, split) for split in ("validation", "test")}
    return {"baseline": {"name": found[0]["name"], **scores}}


def _group(members: list[dict[str, Any]]) -> dict[str, Any]:
    """An entry of the ranking, from jobs that differ only in seed or fold."""
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
    """The values of a job without seed and fold, which are chance and not settings."""
    return {key: value for key, value in job["values"].items() if key not in ("seed", FOLD)}


def _spreads(members: list[dict[str, Any]], split: str) -> dict[str, Any]:
    """The spread of every numeric metric."""
    names = dict.fromkeys(name for job in members for name, value in (job[split] or {}).items() if _is_score(value))
    return {name: _spread(members, split, name) for name in names}


def _is_score(value: Any) -> bool:
    # metrics.json also has lists, per-class tables, and null for a metric that the rows do not have.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spread(members: list[dict[str, Any]], split: str, metric: str) -> dict[str, Any] | None:
    """Mean, sample standard deviation, and count of a metric over members; None if no member has it."""
    found = [score for job in members if (score := (job[split] or {}).get(metric)) is not None]
    return {"mean": mean(found), "sd": stdev(found) if len(found) > 1 else None, "count": len(found)} if found else None


def _rank(group: dict[str, Any], split: str) -> tuple[bool, bool, float, float]:
    """A sort key: the best mean first, and of equal ones the smaller loss.

    Groups in which a run is missing come after complete ones: the missing seed or fold may be the worst. Groups without
    a metric come last.
    """
    if not group[split]:
        return True, True, 0.0, 0.0
    score = group[split]["mean"]
    loss = group["scores"][split].get("loss", {"mean": 0.0})["mean"]
    return False, group[split]["count"] < len(group["folders"]), -score if METRICS[group["metric"]] else score, loss
