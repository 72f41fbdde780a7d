"""The files of a sweep or search for people: jobs.csv or trials.csv with a row for each job, and report.html."""

import csv
import io
import math
from typing import Any

from llmft.reporting.charts import Line, chart
from llmft.reporting.reports import pages
from llmft.runs.folder import Run
from llmft.schema.job import Dimension, Space
from llmft.schema.metric import METRICS
from llmft.sweeps.layout import Sweep, short_keys
from llmft.sweeps.tables import ranked_by, ranking


def write_sweep_report(sweep: Sweep, facts: dict[str, Any]) -> None:
    """Write jobs.csv and report.html from the facts of summary.json."""
    jobs = [_job_row(number, job) for number, job in enumerate(facts["jobs"], 1)]
    keys = list(dict.fromkeys(key for job in facts["jobs"] for key in job["values"]))
    text = io.StringIO()
    # restval: jobs of one sweep may set different keys, such as those of two optimizers.
    writer = csv.DictWriter(
        text,
        ["job", *keys, *(key for key in jobs[0] if key != "job" and key not in keys)],
        restval="",
        lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(jobs)
    folder = Run(sweep.folder)
    folder.write_text("jobs.csv", text.getvalue())
    # Only reports that exist are linked: a failed job has none.
    reports = {job["folder"] for job in facts["jobs"] if (sweep.folder / job["folder"] / "report.html").is_file()}
    page = (
        pages()
        .get_template("sweep.html.jinja")
        .render(
            config=sweep.entries[0].config,
            facts=facts,
            folder=sweep.folder,
            jobs=jobs,
            keys=short_keys(keys),
            done=sum(job["status"] == "done" for job in facts["jobs"]),
            ranking=ranking(facts),
            ranked_by=ranked_by(facts),
            scatter=[picture for key in keys if (picture := _job_scatter(key, facts))],
            reports=reports,
        )
    )
    folder.write_text("report.html", page)


def _job_row(number: int, job: dict[str, Any]) -> dict[str, Any]:
    scores = {split: (job[split] or {}).get(job["metric"]) for split in ("validation", "test")}
    ended = {"status": job["status"], "reason": job["reason"], "metric": job["metric"]}
    return {"job": number, **job["values"], **ended, **scores, "seconds": job["seconds"], "folder": job["folder"]}


def _job_scatter(key: str, facts: dict[str, Any]) -> str:
    """A chart of the metric over the values of a key; empty for a key without numbers, for the seed, or one value."""
    # Jobs of another task have another metric, which cannot share an axis.
    points = [
        (job["values"].get(key), (job[facts["split"]] or {}).get(job["metric"]))
        for job in facts["jobs"]
        if job["metric"] == facts["jobs"][0]["metric"]
    ]
    found = [(value, score) for value, score in points if _is_number(value) and score is not None]
    if key == "seed" or len(found) < len(points) or len({value for value, _ in found}) < 2:
        return ""
    metric = facts["jobs"][0]["metric"]
    return chart([Line(f"{metric} by {key}", found, "b", joined=False)], key, f"{metric} by {key}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def write_search_report(sweep: Sweep, space: Space, facts: dict[str, Any]) -> None:
    """Write trials.csv and report.html from the facts of summary.json."""
    trials = history(facts)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(trials[0]) if trials else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(trials)
    folder = Run(sweep.folder)
    folder.write_text("trials.csv", text.getvalue())
    page = (
        pages()
        .get_template("search.html.jinja")
        .render(
            config=space.first.config,
            search=facts["search"],
            folder=sweep.folder,
            trials=trials,
            best=max((trial["trial"] for trial in trials if trial["folder"] == facts["best"]), default=None),
            done=[trial for trial in trials if trial["status"] == "done"],
            importance=facts["search"]["importance"],
            history=_history_chart(trials, facts),
            curves=_curves_chart(facts),
            scatter=[
                _trial_scatter(dimension, trials, facts) for dimension in space.dimensions if not dimension.choices
            ],
            keys=short_keys(facts["search"]["space"]),
        )
    )
    folder.write_text("report.html", page)


def history(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials in order: their values, how they ended, their metric, and the best value so far."""
    metric = facts["search"]["metric"]
    pick = max if METRICS[metric] else min
    rows: list[dict[str, Any]] = []
    best: float | None = None
    for number, job in enumerate(facts["jobs"], 1):
        # Only of finished trials: the metric of a pruned one is of fewer steps.
        score = (job["validation"] or {}).get(metric) if job["status"] == "done" else None
        if score is not None:
            best = score if best is None else pick(best, score)
        curve = facts["search"]["curves"].get(job["folder"], {})
        rows.append(
            {
                "trial": number,
                **job["values"],
                "status": job["status"],
                "percent": max(map(int, curve), default=0),
                metric: score,
                "best": best,
                "seconds": job["seconds"],
                "folder": job["folder"],
            }
        )
    return rows


def _history_chart(trials: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    metric = facts["search"]["metric"]
    scores = [(trial["trial"], trial[metric]) for trial in trials if trial[metric] is not None]
    best = [(trial["trial"], trial["best"]) for trial in trials if trial["best"] is not None]
    lines = [Line("best so far", best, "a"), Line("a trial", scores, "b", joined=False)]
    return chart(lines, "trial", f"{metric} by trial")


def _curves_chart(facts: dict[str, Any]) -> str:
    """A chart of the validation metric of every trial during training, with the best one highlighted."""
    metric = facts["search"]["metric"]
    lines: list[Line] = []
    for folder, curve in facts["search"]["curves"].items():
        points = sorted((int(percent), value) for percent, value in curve.items())
        if folder != facts["best"] and points:
            lines.append(Line("" if lines else "a trial", points, "c"))  # one entry in the legend for all of them
    # Last, so that it is drawn above the others.
    best = facts["search"]["curves"].get(facts["best"], {})
    lines.append(Line("the best", sorted((int(percent), value) for percent, value in best.items()), "a"))
    return chart(lines, "percent of its steps", f"{metric} while training")


def _trial_scatter(dimension: Dimension, trials: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """A chart of the metric over a key, or over its logarithm if it is searched on that scale."""
    metric, key = facts["search"]["metric"], dimension.key
    name = f"log10 of {key}" if dimension.log else key
    points = [
        (math.log10(trial[key]) if dimension.log else trial[key], trial[metric])
        for trial in trials
        if trial[metric] is not None
    ]
    return chart([Line(f"{metric} by {key}", points, "b", joined=False)], name, f"{metric} by {key}")
