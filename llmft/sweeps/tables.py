"""Console output of sweeps and searches: the plan, a line when a job starts or ends, and the ranking."""

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
    """Print the plan: the number of jobs, the values of each key, the folder, and notes."""
    jobs = [entry.job for entry in sweep.entries]
    done = sum(entry.status == "done" for entry in sweep.entries)
    print(f"llmft {jobs[0].config.command} -m: {plural(len(jobs), 'jobs')}, {at_a_time}")
    values: dict[str, dict[str, None]] = {}  # a dict as an ordered set: values in the order of the command line
    for job in jobs:
        for key, value in job.values.items():
            values.setdefault(key, {})[format_value(value)] = None
    lines = []
    for key, found in values.items():
        texts = list(found)
        # Eight values fit in a line; seed=range(100) does not.
        lines.append([key, ", ".join(texts[:8]) + (f", ... ({len(texts)})" if len(texts) > 8 else "")])
    lines.append(["folder", str(sweep.folder)])
    if done:
        lines.append(["note", f"{done} of them {'is' if done == 1 else 'are'} finished already"])
    if duplicates := sum(job.duplicates for job in jobs):
        lines.append(
            ["note", f"{duplicates} more would repeat one of these, and {'is' if duplicates == 1 else 'are'} left out"]
        )
    lines += [["note", note] for note in notes]
    for row in aligned(lines):
        print(f"  {row}")
    print(flush=True)


def line(sweep: Sweep, entry: Entry, text: str) -> None:
    """Print a line on a job: its number, its label, and `text`."""
    count = str(len(sweep.entries))
    # Labels are padded to the widest, so that results form a column; from 60 on the terminal would wrap every line.
    widest = max(width(other.label) for other in sweep.entries)
    label = entry.label + " " * (min(widest, 60) - width(entry.label))
    print(f"[{entry.number:>{len(count)}}/{count}] {label}  {text}", flush=True)


def result(facts: dict[str, Any], entry: Entry, seconds: float) -> str:
    """The metric of a finished job, or why it has none, and how long it took."""
    took = duration(seconds)
    if entry.status != "done":
        log = f" ({entry.folder / 'log.txt'})" if entry.status == "failed" else ""
        return f"{entry.status} after {took}" + (f": {entry.reason}{log}" if entry.reason else "")
    (job,) = (job for job in facts["jobs"] if job["folder"] == entry.folder.name)
    score = (job[facts["split"]] or {}).get(job["metric"])
    return took if score is None else f"{job['metric']} {score:.4f} ({facts['split']})  {took}"


def conclude(sweep: Sweep, facts: dict[str, Any]) -> None:
    """Print the ranking, the files, and the next command to type."""
    if not any(group[split] for group in facts["ranking"] for split in ("validation", "test")):
        print(f"\n  summary    {sweep.folder / 'summary.json'}; no job has a score yet", flush=True)
        return
    folds = any(FOLD in job["values"] for job in facts["jobs"])
    # Folds of a single setting: there is nothing to rank, so all metrics are shown instead of one.
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
    elif alone:  # none of the models is the best, but their ensemble can be used
        files = sweep.entries[0].config.own_files
        print(f"  next       llmft eval {sweep.folder} ensemble=mean {files}", flush=True)


def ranking(facts: dict[str, Any]) -> list[list[str]]:
    """The ranking as a table, with a row for each group of jobs that differ only in seed or fold."""
    keys = list(dict.fromkeys(key for group in facts["ranking"] for key in group["values"]))
    short = short_keys(keys)
    chance = [name for key, name in CHANCE.items() if any(key in job["values"] for job in facts["jobs"])]
    counts = chance if len(chance) < 2 else ["runs"]  # "3 of 3 seeds"; with seeds and folds, "6 of 6 runs"
    splits = [split for split in ("validation", "test") if any(group[split] for group in facts["ranking"])]
    table = [[*(short[key] for key in keys), "metric", *splits, *counts, "time"]]
    for group in facts["ranking"]:
        values = [format_value(group["values"][key]) if key in group["values"] else "" for key in keys]
        counted = [f"{_count(group)} of {len(group['folders'])}"] if counts else []
        took = "" if group["seconds"] is None else duration(group["seconds"])
        table.append([*values, group["metric"], *(_score(group[split]) for split in splits), *counted, took])
    return table


def _metrics(group: dict[str, Any]) -> list[list[str]]:
    """All metrics of a single group, a row each, for folds of one setting."""
    scores = group["scores"]
    splits = [split for split in ("validation", "test") if scores[split]]
    # Micro averages of a single-label task equal accuracy: three rows that repeat the first.
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
    """The metric and split that the ranking is ordered by."""
    kinds = list(dict.fromkeys((group["task"], group["metric"]) for group in facts["ranking"]))
    if len(kinds) > 1:
        return f"{facts['split']}, each among its own: {', '.join(f'{metric} of {task}' for task, metric in kinds)}"
    (_, metric), *_ = kinds
    return f"{metric} on {facts['split']}, {'more' if METRICS[metric] else 'less'} is better"


def announce_search(sweep: Sweep, space: Space, study: "Study", at_a_time: str) -> None:
    """Print the plan of a search: the number of trials, the dimensions, the metric, and the folder."""
    config, search = space.first.config, study.config
    metric = config.metric_for_best
    pruned = "" if search.pruner == "none" else f", given up early by {search.pruner}"
    print(f"llmft {config.command}, search={search.name}: {study.size} trials, {at_a_time}{pruned}")
    lines = [[dimension.key, str(dimension)] for dimension in space.dimensions]
    lines.append(["metric", f"{metric} on validation, {'more' if METRICS[metric] else 'less'} is better"])
    lines.append(["folder", str(sweep.folder)])
    if over := sum(trial.status != "running" for trial in study.trials):
        lines.append(["note", f"{over} of them {'is' if over == 1 else 'are'} over already"])
    for row in aligned(lines):
        print(f"  {row}")
    print(flush=True)


def trial_line(study: "Study", entry: Entry, text: str) -> None:
    """Print a line on a trial: its number, its label, and `text`."""
    count = str(study.size)
    print(f"[{entry.number:>{len(count)}}/{count}] {entry.label}  {text}", flush=True)


def conclude_search(sweep: Sweep, facts: dict[str, Any]) -> None:
    """Print the best trials, the importance of keys, the files, and the next command to type."""
    # Pruned and failed trials have none: a metric after fewer steps cannot be compared with that of a whole trial.
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
