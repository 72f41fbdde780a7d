"""What sweeps and searches print: what they will do, a line as a job starts and one as it ends, a table, best first."""

from typing import TYPE_CHECKING, Any

from llmft.reporting.lines import aligned, duration, width
from llmft.schema.job import Space, format_value
from llmft.schema.metric import METRICS
from llmft.schema.problem import plural
from llmft.sweeps.layout import Entry, Sweep, short_keys
from llmft.sweeps.summary import FOLD

if TYPE_CHECKING:
    from llmft.sweeps.study import Study

SHOWN = 10  # trials in the table of a search; trials.csv has all
CHANCE = {"seed": "seeds", FOLD: "folds"}


def announce(sweep: Sweep, at_a_time: str, notes: list[str]) -> None:
    """Print how many jobs there are, of what, and where; and what else there is to know, a line each."""
    jobs = [entry.job for entry in sweep.entries]
    done = sum(entry.status == "done" for entry in sweep.entries)
    print(f"llmft {jobs[0].config.command} -m: {plural(len(jobs), 'jobs')}, {at_a_time}")
    values: dict[str, dict[str, None]] = {}
    for job in jobs:
        for key, value in job.values.items():
            values.setdefault(key, {})[format_value(value)] = None
    lines = []
    for key, found in values.items():
        texts = list(found)
        lines.append([key, ", ".join(texts[:8]) + (f", ... ({len(texts)})" if len(texts) > 8 else "")])
    lines.append(["folder", str(sweep.folder)])
    if done:
        lines.append(["note", f"{done} of them {'is' if done == 1 else 'are'} finished already"])
    if duplicates := sum(job.duplicates for job in jobs):
        lines.append(
            ["note", f"{duplicates} more would be the same as these, and {'is' if duplicates == 1 else 'are'} left out"]
        )
    lines += [["note", note] for note in notes]
    for row in aligned(lines):
        print(f"  {row}")
    print(flush=True)


def line(sweep: Sweep, entry: Entry, text: str) -> None:
    """Print what became of a job."""
    count = str(len(sweep.entries))
    widest = max(width(other.label) for other in sweep.entries)
    label = entry.label + " " * (min(widest, 60) - width(entry.label))
    print(f"[{entry.number:>{len(count)}}/{count}] {label}  {text}", flush=True)


def result(facts: dict[str, Any], entry: Entry, seconds: float) -> str:
    """What a job scored, or why it has no score."""
    took = duration(seconds)
    if entry.status != "done":
        log = f" ({entry.folder / 'log.txt'})" if entry.status == "failed" else ""
        return f"{entry.status} after {took}" + (f": {entry.reason}{log}" if entry.reason else "")
    (job,) = (job for job in facts["jobs"] if job["folder"] == entry.folder.name)
    score = (job[facts["split"]] or {}).get(job["metric"])
    return took if score is None else f"{job['metric']} {score:.4f} ({facts['split']})  {took}"


def conclude(sweep: Sweep, facts: dict[str, Any]) -> None:
    """Print the table, where it is, and the next command to type."""
    if not any(group[split] for group in facts["ranking"] for split in ("validation", "test")):
        print(f"\n  summary    {sweep.folder / 'summary.json'}; no job has a score yet", flush=True)
        return
    folds = any(FOLD in job["values"] for job in facts["jobs"])
    alone = folds and len(facts["ranking"]) == 1
    print()
    for row in aligned(_metrics(facts["ranking"][0]) if alone else ranking(facts)):
        print(f"  {row}")
    print()
    if beside := facts.get("baseline"):
        metric, split = sweep.entries[0].config.headline, facts["split"]
        score = f": {metric} {_score(beside[split][metric])} ({split})" if metric in beside[split] else ""
        print(f"  baseline   {beside['name']}{score}")
    if not alone:
        print(f"  ranked by  {ranked_by(facts)}")
    print(f"  summary    {sweep.folder / 'summary.json'}")
    print(f"  report     {sweep.folder / 'report.html'}")
    if facts["best"]:
        print(f"  next       llmft {sweep.entries[0].config.command} {sweep.folder / 'best.yaml'}", flush=True)
    elif alone:
        files = sweep.entries[0].config.own_files
        print(f"  next       llmft eval {sweep.folder} ensemble=mean {files}", flush=True)


def ranking(facts: dict[str, Any]) -> list[list[str]]:
    """A row for each group of jobs that differ by chance alone."""
    keys = list(dict.fromkeys(key for group in facts["ranking"] for key in group["values"]))
    short = short_keys(keys)
    chance = [name for key, name in CHANCE.items() if any(key in job["values"] for job in facts["jobs"])]
    counts = chance if len(chance) < 2 else ["runs"]
    splits = [split for split in ("validation", "test") if any(group[split] for group in facts["ranking"])]
    table = [[*(short[key] for key in keys), "metric", *splits, *counts, "time"]]
    for group in facts["ranking"]:
        values = [format_value(group["values"][key]) if key in group["values"] else "" for key in keys]
        counted = [f"{_count(group)} of {len(group['folders'])}"] if counts else []
        took = "" if group["seconds"] is None else duration(group["seconds"])
        table.append([*values, group["metric"], *(_score(group[split]) for split in splits), *counted, took])
    return table


def _metrics(group: dict[str, Any]) -> list[list[str]]:
    """A row for each metric of jobs that differ by chance alone: nothing was chosen, so there is nothing to rank."""
    scores = group["scores"]
    splits = [split for split in ("validation", "test") if scores[split]]
    names = dict.fromkeys(name for split in splits for name in scores[split] if not name.endswith("_micro"))
    count = f"{_count(group)} of {plural(len(group['folders']), 'runs')}"
    return [[count, *splits], *([name, *(_score(scores[split].get(name)) for split in splits)] for name in names)]


def _count(group: dict[str, Any]) -> int:
    return max((group[split]["count"] for split in ("validation", "test") if group[split]), default=0)


def _score(spread: dict[str, Any] | None) -> str:
    if spread is None:
        return "-"
    return f"{spread['mean']:.4f}" + ("" if spread["sd"] is None else f" ± {spread['sd']:.4f}")


def ranked_by(facts: dict[str, Any]) -> str:
    """What the order of the table goes by."""
    kinds = list(dict.fromkeys((group["task"], group["metric"]) for group in facts["ranking"]))
    if len(kinds) > 1:
        return f"{facts['split']}, each among its own: {', '.join(f'{metric} of {task}' for task, metric in kinds)}"
    (_, metric), *_ = kinds
    return f"{metric} on {facts['split']}, {'more' if METRICS[metric] else 'less'} is better"


def announce_search(sweep: Sweep, space: Space, study: "Study", at_a_time: str) -> None:
    """Print how many trials there will be, of what, by which score, and where."""
    config, search = space.first.config, study.config
    metric = config.metric_for_best
    pruned = "" if search.pruner == "none" else f", given up early by {search.pruner}"
    print(f"llmft {config.command}, search={search.name}: {study.size} trials, {at_a_time}{pruned}")
    lines = [[dimension.key, str(dimension)] for dimension in space.dimensions]
    lines.append(["score", f"{metric} on validation, {'more' if METRICS[metric] else 'less'} is better"])
    lines.append(["folder", str(sweep.folder)])
    if over := sum(trial.status != "running" for trial in study.trials):
        lines.append(["note", f"{over} of them {'is' if over == 1 else 'are'} over already"])
    for row in aligned(lines):
        print(f"  {row}")
    print(flush=True)


def trial_line(study: "Study", entry: Entry, text: str) -> None:
    """Print what became of a trial."""
    count = str(study.size)
    print(f"[{entry.number:>{len(count)}}/{count}] {entry.label}  {text}", flush=True)


def conclude_search(sweep: Sweep, facts: dict[str, Any]) -> None:
    """Print the best trials, which keys mattered, where all is, and the next command to type."""
    scored = [group for group in facts["ranking"] if group["validation"]]
    print()
    if scored:
        for row in aligned(ranking(facts | {"ranking": scored[:SHOWN]})):
            print(f"  {row}")
        counts = {status: sum(job["status"] == status for job in facts["jobs"]) for status in ("pruned", "failed")}
        more = [f"{count} {status}" for status, count in counts.items() if count]
        more += [f"{len(scored) - SHOWN} more in trials.csv"] if len(scored) > SHOWN else []
        print(f"  {', '.join(more)}\n" if more else "")
        print(f"  ranked by  {ranked_by(facts)}")
    if importance := facts["search"]["importance"]:
        short = short_keys(importance)
        shares = ", ".join(f"{short[key]} {share:.0%}" for key, share in importance.items())
        print(f"  mattered   {shares}; by {len(scored)} finished trials")
    print(f"  trials     {sweep.folder / 'trials.csv'}")
    print(f"  report     {sweep.folder / 'report.html'}")
    if facts["best"]:
        print(f"  next       llmft {sweep.entries[0].config.command} {sweep.folder / 'best.yaml'}", flush=True)
