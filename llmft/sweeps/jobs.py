"""`llmft finetune -m`: many runs by one command, prepared together, each in a process of its own.

torch is imported inside functions: PYTORCH_NVML_BASED_CUDA_CHECK must be there first, and the folder is looked at
before the seconds that it takes.
"""

import gc
import json
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from signal import Signals
from typing import TYPE_CHECKING, Any

from llmft.commands.label import with_label
from llmft.reporting.lines import quiet
from llmft.runs.ending import DONE, STOPPED
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.job import Job, collect_problems, in_jobs
from llmft.schema.problem import Failure, Problem, Stopped, UserError
from llmft.sweeps import tables
from llmft.sweeps.child import ChildJob
from llmft.sweeps.children import FORKS, Children
from llmft.sweeps.layout import Entry, Sweep
from llmft.sweeps.summary import write_summary

if TYPE_CHECKING:
    from llmft.commands.prepare import Prepared


def run(jobs: list[Job], command: str, fork: bool = True) -> dict[str, Any]:
    """Do every job that is not done, and compare them all.

    Args:
        command: what was typed, to go on with.
        fork: whether jobs may be forked: not from a process that has computed, see Children.

    Returns:
        The folder, and what summary.json says.

    Raises:
        UserError: if the folder, the machine or the data are not as any job needs them; nothing is written then.
        Failure: if a job failed; the others were done.
        Stopped: if a signal stopped the sweep.
    """
    # By default torch asks CUDA whether there is a GPU, and a process that has asked cannot be forked any more.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    jobs, notes = with_labels(jobs)
    sweep = Sweep.of(jobs)
    sweep.check()
    shared = jobs[0].config.sweep
    slots: deque[int | None] = deque(shared.gpus) or deque([None] * shared.jobs)
    tables.announce(sweep, f"{len(slots)} at a time", notes)
    check_hardware(sweep, shared.gpus)
    prepared = prepare(sweep)
    with sweep.alone(), Children(fork) as children:
        write_summary(sweep, at_work=True)
        work(sweep, prepared, slots, children)
        facts = write_summary(sweep)
        import_module("llmft.sweeps.report").write_sweep_report(sweep, facts)
    tables.conclude(sweep, facts)
    left = [entry.label for entry in sweep.entries if entry.status != "done"]
    if left and children.received:
        raise Stopped(f"{children.received}; what was done is saved. Go on with: {command}")
    if left:
        raise Failure(f"{len(left)} of {len(sweep.entries)} jobs: {', '.join(left)}")
    return {"folder": str(sweep.folder), "metrics": facts}


def with_labels(jobs: list[Job]) -> tuple[list[Job], list[str]]:
    """The jobs with their `dataset.columns.label`, and a line on each that was guessed."""
    labeled = [with_label(job.config) for job in jobs]
    named = [replace(job, config=config) for job, (config, _) in zip(jobs, labeled, strict=True)]
    return named, list(dict.fromkeys(note for _, notes in labeled for note in notes))


def check_hardware(sweep: Sweep, gpus: list[int]) -> None:
    """Raise UserError for one of `gpus` that is not there, and for what a job that is left lacks on this machine."""
    import torch

    from llmft.training.hardware import device_of
    from llmft.training.trackers import check_trackers

    if missing := [gpu for gpu in gpus if gpu >= torch.cuda.device_count()]:
        what = f"must name GPUs of this machine, which has {torch.cuda.device_count()}, got {missing[0]}"
        raise UserError(Problem("sweep.gpus", what))
    left = [entry for entry in sweep.entries if entry.status != "done"]
    wrong: dict[Problem, list[str]] = {}
    for entry in left:
        with collect_problems(wrong, entry.label):
            check_trackers(entry.config.tracking)
            hardware = entry.config.hardware
            if hardware.nodes > 1:
                what = f"must be 1 in a sweep, which runs on one machine, got {hardware.nodes}"
                raise UserError(Problem("hardware.nodes", what, hint="Leave it out."))
            if device_of(hardware) == "cuda" and gpus and hardware.processes > 1:
                what = f"must be 1 with sweep.gpus, which gives each job one GPU, got {hardware.processes}"
                raise UserError(Problem("hardware.processes", what, hint="Leave out one of the two."))
    if wrong:
        raise UserError(in_jobs(wrong, len(left)))


def prepare(sweep: Sweep) -> "list[Prepared]":
    """The data of each job, each data set once, and the imports that a job would spend seconds on.

    Nothing is computed with torch here: see Children.

    Raises:
        UserError: with what is wrong with the data of any job.
    """
    from llmft.commands.prepare import decided_by
    from llmft.commands.prepare import prepare as prepare_data
    from llmft.models.build import import_architecture
    from llmft.reporting.reports import pages

    quiet()
    if FORKS:
        import_module("llmft.commands.finetune")
        import_module("llmft.training.train")
        for module in iter_modules(import_module("llmft.metrics").__path__):
            with suppress(ImportError):  # what it needs may be an extra that is not installed
                import_module(f"llmft.metrics.{module.name}")
        for page in ("report.html.jinja", "card.md.jinja"):
            pages().get_template(page)  # compiled here: 0.2 s of a job's 1.2
    keys = [json.dumps(decided_by(entry.config)) for entry in sweep.entries]
    by_key: dict[str, Prepared | None] = {}
    wrong: dict[Problem, list[str]] = {}
    for key, entry in zip(keys, sweep.entries, strict=True):
        with collect_problems(wrong, entry.label):
            if key not in by_key:
                by_key[key] = None  # in case it cannot be prepared
                by_key[key] = prepare_data(entry.config)
            if data := by_key[key]:
                import_architecture(entry.config.model, data.task.head)
    if wrong:
        raise UserError(in_jobs(wrong, len(by_key)), "the data")
    firsts = {keys.index(key) for key in by_key}
    prepared = [replace(data, first=n in firsts) for n, key in enumerate(keys) if (data := by_key[key])]
    sweep.check_data([data.data.digests for data in prepared])
    return prepared


def work(sweep: Sweep, prepared: "list[Prepared]", slots: deque[int | None], children: Children) -> None:
    """Keep every slot busy until no job is left or a signal comes; `slots` are GPUs, or None for no choice."""
    gc.freeze()  # what this process holds is not garbage: looking through it took each job 0.3 of 0.8 s
    waiting = deque(entry for entry in sweep.entries if entry.status != "done")
    share = min(len(slots), len(waiting))
    started: dict[int, float] = {}
    sizes = BatchSizes()
    while children.running or (waiting and not children.received):
        while waiting and slots and not children.received:
            entry, gpu = waiting.popleft(), slots.popleft()
            if not (entry.folder / "config.yaml").is_file():
                Run.create(entry.config)
            tables.line(sweep, entry, "starts")
            started[entry.number] = time.monotonic()
            data = prepared[entry.number - 1]
            data = replace(data, known_batch_size=sizes.of(entry.config, gpu, share))
            child = child_job(entry, data, gpu, share, children.forks)
            children.start((entry, gpu), entry.folder / "log.txt", child)
        for (entry, gpu), code in children.ended():
            slots.append(gpu)
            end(entry, code, stopping=bool(children.received))
            sizes.learn(entry)
            facts = write_summary(sweep, at_work=True)
            tables.line(sweep, entry, tables.result(facts, entry, time.monotonic() - started[entry.number]))


def child_job(entry: Entry, prepared: "Prepared", gpu: int | None, share: int, forks: bool) -> ChildJob:
    """The run of an entry; a forked process shares the memory of its data."""
    data, first, known = prepared if forks else None, prepared.first, prepared.known_batch_size
    return ChildJob(entry.config, data, first, known, gpu, share)


class BatchSizes:
    """The batch sizes that fitted into memory, by what decides it: later jobs need not try theirs, 0.5 s for MiniLM.

    Seed, optimizer, and schedule decide nothing: the trial reserves what Adam keeps, whatever the optimizer is.
    """

    def __init__(self) -> None:
        self._found: dict[str, int] = {}

    def learn(self, entry: Entry) -> None:
        """Keep what a job trained with, if it is done; a model that is fitted has no batches."""
        if entry.status == "done":
            metrics = json.loads((entry.folder / "metrics.json").read_text(encoding="utf-8"))
            if size := metrics["train"].get("batch_size"):
                self._found[self._key(entry.config)] = size

    def of(self, config: Config, gpu: int | None, share: int) -> int | None:
        """The batch size for a job like an earlier one; None where it has to try, or shares its memory with others."""
        return self._found.get(self._key(config)) if share == 1 or gpu is not None else None

    def _key(self, config: Config) -> str:
        return config.model_dump_json(include={"task", "model", "adapter", "dataset", "trainer", "hardware"})


def end(entry: Entry, code: int, stopping: bool) -> None:
    """Note how a job ended, by the exit code of its process."""
    if code == DONE:
        entry.status = "done"
    elif code == STOPPED or (stopping and code < 0):
        entry.status = "stopped"
    else:
        entry.status = "failed"
        entry.reason = f"killed by {Signals(-code).name}" if code < 0 else last_line(entry)


def last_line(entry: Entry) -> str:
    """The end of a job's log, which is the reason where it failed."""
    text = (entry.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip()
    return text.rpartition("\n")[2].strip().removeprefix("failed: ")
