"""What a search prints: what it will try, a line as a trial starts and one as it ends, and the best of them."""

from typing import TYPE_CHECKING, Any

from llmft.reporting.sweep import aligned, ranked_by, ranking
from llmft.runs.sweep import Entry, Sweep, short_keys
from llmft.schema.metric import METRICS
from llmft.schema.space import Space

if TYPE_CHECKING:
    from llmft.runs.study import Study

SHOWN = 10  # rows of the table; trials.csv has all


def announce(sweep: Sweep, space: Space, study: "Study", at_a_time: str) -> None:
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


def line(study: "Study", entry: Entry, text: str) -> None:
    """Print what became of a trial."""
    count = str(study.size)
    print(f"[{entry.number:>{len(count)}}/{count}] {entry.label}  {text}", flush=True)


def conclude(sweep: Sweep, facts: dict[str, Any]) -> None:
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
