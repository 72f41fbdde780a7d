"""`llmft finetune search=tpe ...`: trials drawn one after another, each a run in a process of its own.

What is heavy is imported inside functions, for the reasons that jobs.py gives.
"""

import gc
import hashlib
import json
import os
import shutil
import time
from collections import deque
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.runs.folder import MAY_DIFFER, flat
from llmft.runs.index import ROOT
from llmft.schema.config import Config
from llmft.schema.job import Job, Space, as_overrides
from llmft.schema.metric import METRICS
from llmft.schema.problem import Failure, Problem, Stopped, UserError
from llmft.sweeps import tables
from llmft.sweeps.child import GIVEN_UP, Reports
from llmft.sweeps.children import Children
from llmft.sweeps.jobs import BatchSizes, check_hardware, child_job, end, last_line, prepare
from llmft.sweeps.layout import Entry, Sweep, short_keys
from llmft.sweeps.summary import write_summary

if TYPE_CHECKING:
    from llmft.commands.prepare import Prepared
    from llmft.sweeps.study import Study, Trial

JOURNAL = "study.jsonl"
OF_THE_COMMAND = {"resume", "search.trials", "search.timeout", *MAY_DIFFER}  # may differ when a search goes on


def run(space: Space, command: str, fork: bool = True) -> dict[str, Any]:
    """Do every trial that is left, and show which settings did best and which keys mattered.

    Args:
        command: what was typed, to go on with.
        fork: whether trials may be forked, see jobs.py.

    Returns:
        The folder, and what summary.json says.

    Raises:
        UserError: if Optuna is missing, or the folder, the machine or the data are not as the first trial needs them;
            nothing is written then.
        Failure: if no trial has a score.
        Stopped: if a signal stopped the search.
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # see jobs.py
    first, sweep = space.first.config, Sweep(folder_of(space), [])
    sweep.check_folder(first)
    study_class = import_study()
    probe = Sweep(sweep.folder, [])
    probe.add(1, space.first, "the first trial", "first")
    check_hardware(probe, first.sweep.gpus)
    data = {data_of(first): prepare(probe)[0]}
    with sweep.alone(), Children(fork) as children:
        assert first.search
        study = study_class(first.search, space.dimensions, METRICS[first.metric_for_best], sweep.folder / JOURNAL)
        study.bind(facts_of(space))
        tables.announce_search(sweep, space, study, f"{len(_slots(first))} at a time")
        work(sweep, space, study, data, children)
        facts = summary(sweep, space, study)
        import_module("llmft.sweeps.report").write_search_report(sweep, space, facts)
    tables.conclude_search(sweep, facts)
    if children.received:
        raise Stopped(f"{children.received}; what was done is saved. Go on with: {command}")
    if not facts["best"]:
        raise Failure(f"none of {len(sweep.entries)} trials has a score")
    return {"folder": str(sweep.folder), "metrics": facts}


def import_study() -> "type[Study]":
    """Optuna, in our words."""
    try:
        from llmft.sweeps.study import Study
    except ImportError as error:
        hint = "Write: pip install 'llmft[search]'."
        raise UserError(Problem("search", "needs the package optuna, which is not installed", hint=hint)) from error
    return Study


def facts_of(space: Space) -> dict[str, Any]:
    """What all trials of a search share, by dotted key, and what it looks through."""
    tree = space.first.config.model_dump(mode="json", exclude={"run", "sweep", "expect"})
    shared = {key: value for key, value in flat(tree).items() if key not in OF_THE_COMMAND}
    return shared | {dimension.key: str(dimension) for dimension in space.dimensions}


def folder_of(space: Space) -> Path:
    """`run.dir`, or a folder that the same search finds again."""
    config = space.first.config
    if config.run.dir:
        return Path(config.run.dir)
    digest = hashlib.sha256(json.dumps(facts_of(space), sort_keys=True).encode()).hexdigest()[:8]
    return ROOT / config.name / f"search-{digest}"


def data_of(config: Config) -> str:
    """Trials of the same are given the same prepared data."""
    from llmft.commands.prepare import decided_by

    return json.dumps(decided_by(config))


def work(sweep: Sweep, space: Space, study: "Study", data: "dict[str, Prepared]", children: Children) -> None:
    """Keep every slot busy until no trial is left, the time is over or a signal comes."""
    gc.freeze()  # see jobs.py
    config = space.first.config
    search, slots = config.search, _slots(config)
    assert search
    begun = deque(trial for trial in study.trials if trial.status == "running")
    for trial in study.trials:
        if trial.status != "running":
            place(sweep, space, trial)
    share, start = min(len(slots), study.size), time.monotonic()
    ends = start + (search.timeout or float("inf"))
    sizes = BatchSizes()
    while True:
        while slots and not children.received:
            if not begun and (len(study.trials) >= study.size or time.monotonic() > ends):
                break
            trial = begun.popleft() if begun else study.ask()
            entry = place(sweep, space, trial)
            if (prepared := ready(sweep, entry, data)) is None:
                study.failed(trial.number)
                tables.trial_line(study, entry, f"failed: {entry.reason}")
                continue
            tables.trial_line(study, entry, "starts")
            gpu = slots.popleft()
            prepared = replace(prepared, known_batch_size=sizes.of(entry.config, gpu, share))
            reports = Reports(study.file, trial.number, search)
            child = replace(child_job(entry, prepared, gpu, share, children.forks), reports=reports)
            children.start((entry, gpu, time.monotonic()), entry.folder / "log.txt", child)
        if not children.running:
            return
        for (entry, gpu, started), code in children.ended():
            slots.append(gpu)
            settle(entry, study, code, stopping=bool(children.received))
            sizes.learn(entry)
            facts = summary(sweep, space, study, at_work=True)
            tables.trial_line(study, entry, tables.result(facts, entry, time.monotonic() - started))


def _slots(config: Config) -> deque[int | None]:
    """A GPU for each trial that runs at a time, or None where it chooses its device itself."""
    return deque(config.sweep.gpus) or deque([None] * config.sweep.jobs)


def place(sweep: Sweep, space: Space, trial: "Trial") -> Entry:
    """The trial in its folder; a combination that is not a configuration has failed."""
    reason = ""
    try:
        job = space.make(trial.words)
    except UserError as error:
        job, reason = Job(trial.words, space.first.config), "; ".join(f"{p.key} {p}" for p in error.problems)
    short = short_keys(job.values)
    label = as_overrides({short[key]: value for key, value in job.values.items()})
    entry = sweep.add(trial.number + 1, job, label, f"trial-{trial.number + 1:03}")
    entry.status = "waiting" if trial.status == "running" else trial.status
    log = entry.folder / "log.txt"
    entry.reason = reason or (last_line(entry) if entry.status in ("failed", "pruned") and log.is_file() else "")
    sweep.entries.sort(key=lambda other: other.number)
    return entry


def ready(sweep: Sweep, entry: Entry, data: "dict[str, Prepared]") -> "Prepared | None":
    """The data of a trial, in a folder that is its own; None, with the reason noted, where there can be none."""
    from llmft.runs.folder import Run

    if not entry.reason:
        try:
            key = data_of(entry.config)
            if key in data:
                data[key] = replace(data[key], first=False)
            else:
                data[key] = prepare(Sweep(sweep.folder, [entry]))[0]
            if not (entry.folder / "config.yaml").is_file():
                Run.create(entry.config)
            return data[key]
        except UserError as error:
            entry.reason = "; ".join(f"{problem.key} {problem}" for problem in error.problems)
    entry.status = "failed"
    return None


def settle(entry: Entry, study: "Study", code: int, stopping: bool) -> None:
    """Note how a trial ended, by the exit code of its process."""
    number, metric = entry.number - 1, entry.config.metric_for_best
    if code == GIVEN_UP:
        entry.status, entry.reason = "pruned", last_line(entry)
        study.pruned(number)
        shutil.rmtree(entry.folder / "checkpoints", ignore_errors=True)  # nobody goes on with it
        return
    end(entry, code, stopping)
    if entry.status == "done":
        scores = json.loads((entry.folder / "metrics.json").read_text(encoding="utf-8")).get("validation") or {}
        if (score := scores.get(metric)) is not None:
            study.done(number, score)
            return
        entry.status, entry.reason = "failed", f"has no {metric} on validation"
    if entry.status == "failed":
        study.failed(number)


def summary(sweep: Sweep, space: Space, study: "Study", at_work: bool = False) -> dict[str, Any]:
    """Write summary.json with what the search knows of its trials, and best.yaml; see `write_summary`."""
    config = space.first.config.search
    assert config
    facts = {
        **config.model_dump(),
        "metric": space.first.config.metric_for_best,
        "space": {dimension.key: str(dimension) for dimension in space.dimensions},
        "importance": {} if at_work else study.importance(),
        "curves": {f"trial-{trial.number + 1:03}": trial.curve for trial in study.trials},
    }
    return write_summary(sweep, {"search": facts}, at_work)
