"""What a sweep leaves to look at: jobs.csv, a row a job in their order, and report.html."""

import csv
import io
from typing import Any

from llmft.reporting.charts import Line, chart
from llmft.reporting.reports import pages
from llmft.reporting.sweep import ranked_by, ranking
from llmft.runs.folder import Run
from llmft.runs.sweep import Sweep, short_keys


def write_sweep_report(sweep: Sweep, facts: dict[str, Any]) -> None:
    """Write jobs.csv and report.html from what summary.json says."""
    jobs = [_row(number, job) for number, job in enumerate(facts["jobs"], 1)]
    keys = list(dict.fromkeys(key for job in facts["jobs"] for key in job["values"]))
    text = io.StringIO()
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
            scatter=[picture for key in keys if (picture := _scatter(key, facts))],
            reports=reports,
        )
    )
    folder.write_text("report.html", page)


def _row(number: int, job: dict[str, Any]) -> dict[str, Any]:
    scores = {split: (job[split] or {}).get(job["metric"]) for split in ("validation", "test")}
    ended = {"status": job["status"], "reason": job["reason"], "metric": job["metric"]}
    return {"job": number, **job["values"], **ended, **scores, "seconds": job["seconds"], "folder": job["folder"]}


def _scatter(key: str, facts: dict[str, Any]) -> str:
    """Score by the value of a key; nothing for one that is no number, is chance, or has one value."""
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
