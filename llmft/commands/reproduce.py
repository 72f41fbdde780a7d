"""`llmft runs reproduce RUN`: trains the same config on the same data again, and compares all numbers exactly."""

from importlib import import_module
from pathlib import Path
from typing import Any

from llmft import tasks
from llmft.commands.prepare import prepare
from llmft.data.files import digest
from llmft.data.passages import corpus_files
from llmft.data.pipeline import source_digests
from llmft.runs.folder import Run, flat
from llmft.schema.config import Config
from llmft.schema.migrate import migrate_path
from llmft.schema.problem import Problem, UserError


def reproduce(folder: Path, to: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """Repeat a finished training run.

    Args:
        to: the folder of the new run; None for a new one beside it.
        trust_remote_code: from the command line. The value in the run's config does not count: somebody else may have
            made the run.

    Returns:
        `scores` of both runs, the files of `weights` that differ, what `differs` in versions and hardware, and whether
        scores and weights are the `same`.

    Raises:
        UserError: for a run that is not finished, or whose data have changed, with each file.
    """
    run = Run.open(folder)
    config = run.config()
    if not config.trains or run.manifest.get("status") != "done":
        what = f"is not a finished training run: {config.command}, {run.manifest.get('status')}"
        raise UserError(Problem(str(folder), what, "command line"), "this command")
    _check_data(run, config)  # by sha256, before hours of training
    asked = config.model.model_copy(update={"trust_remote_code": trust_remote_code})
    place = config.run.model_copy(update={"dir": to})
    # `expect` is what the recipe promises; here the first run is the only yardstick.
    config = config.model_copy(update={"run": place, "model": asked, "resume": False, "expect": None})
    prepared = prepare(config)
    before = run.manifest.get("rows_sha256", {})
    # The same files may still give other rows: from another version of a reader, or a data set on the hub.
    if changed := [name for name in before if before[name] != prepared.data.rows_sha256.get(name)]:
        problems = [Problem(name, f"has other rows than {folder} had") for name in changed]
        raise UserError(problems, "the data")
    new: Run = import_module(f"llmft.commands.{config.command}").run(config, prepared)
    scores = {key: [run_scores(run).get(key), value] for key, value in run_scores(new).items()}
    old, now = (own.manifest.get("weights", {}) for own in (run, Run.open(new.folder)))
    weights = sorted(name for name in old.keys() | now.keys() if old.get(name) != now.get(name))
    facts = {
        "run": str(folder),
        "new": str(new.folder),
        "same": not weights and all(first == second for first, second in scores.values()),
        "scores": scores,
        "weights": weights,
        "differs": surroundings(run, new),
    }
    new.write_json("reproduced.json", facts)
    return facts


def _check_data(run: Run, config: Config) -> None:
    """Raise UserError for files that differ from those that the run has read."""
    # migrate_path: shipped data has moved between versions of llmft, with the same content.
    before = {migrate_path(file): found for file, found in run.manifest.get("data", {}).items()}
    now = source_digests(config.dataset, tasks.build(config.task).columns)
    now |= {str(file): digest(file) for file in corpus_files(config.dataset)}
    problems = []
    for file in sorted(before.keys() | now.keys()):
        if before.get(file) != now.get(file):
            what = (
                "was not there" if file not in before else "is not read any more" if file not in now else "has changed"
            )
            problems.append(Problem(file, f"{what} since {run.folder}"))
    if problems:
        raise UserError(problems, "the data")


def run_scores(run: Run) -> dict[str, Any]:
    """The numeric metrics of every split, by dotted name."""
    metrics = run.metrics()
    found = flat({split: metrics[split] for split in ("validation", "test") if split in metrics})
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def surroundings(run: Run, new: Run) -> dict[str, list[Any]]:
    """Versions, machine, and git commit in which two runs differ, with both values: the likely reasons."""
    keys = ("python", "platform", "packages", "machine", "git", "hardware")
    one, other = (flat({key: own.manifest.get(key) for key in keys}) for own in (run, Run.open(new.folder)))
    return {
        key: [one.get(key), other.get(key)]
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    }


def told(facts: dict[str, Any]) -> list[str]:
    """The facts of `reproduce` as lines to print."""
    differing = {name: pair for name, pair in facts["scores"].items() if pair[0] != pair[1]}
    lines = []
    if facts["same"]:
        lines.append(f"the same as {facts['run']}: {len(facts['scores'])} scores and all weights, to the last digit")
    else:
        lines.append(f"not the same as {facts['run']}")
        lines += [f"{name}  {before} before, {now} now" for name, (before, now) in differing.items()]
        if not differing:
            lines.append(f"all {len(facts['scores'])} scores are the same, to the last digit")
        lines += [f"model/{name}  has other weights" for name in facts["weights"]]
        lines += [f"{name}  was {before}, is {now}" for name, (before, now) in facts["differs"].items()]
    return lines
