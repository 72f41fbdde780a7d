"""The folder of a sweep: a run folder for each job, and what is known of all of them."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmft.runs.folder import Run, as_recipe
from llmft.runs.index import ROOT, SUMMARY, is_run
from llmft.runs.lock import LOCK, held
from llmft.schema.config import Config
from llmft.schema.execution import SweepConfig
from llmft.schema.job import Job, as_overrides
from llmft.schema.problem import Problem, UserError

LONGEST = 100  # bytes of a job's folder name; file systems take 255


@dataclass
class Entry:
    """A job in its place."""

    number: int
    job: Job
    label: str
    """The swept values on one line, `lr=1e-05 seed=1`."""
    config: Config
    """The job's configuration in its own folder; it goes on where it was."""
    status: str = "waiting"
    """`waiting`, `done`, `failed` or `stopped`; in a search also `pruned`."""
    reason: str = ""
    """Why it failed, or was given up."""

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return Path(str(self.config.run.dir))


@dataclass
class Sweep:
    """Jobs, and the folder that theirs lie in."""

    folder: Path
    entries: list[Entry]

    @classmethod
    def of(cls, jobs: list[Job]) -> "Sweep":
        """These jobs in `run.dir`, or in a folder that the same jobs find again."""
        first = jobs[0].config
        name = first.name if all(job.config.name == first.name for job in jobs) else "sweep"
        # What a recipe promises is dropped from jobs that leave it, such as by `sweep.jobs`: they are the same jobs.
        plain = (job.config.model_copy(update={"expect": None}) for job in jobs)
        digest = _digest("".join(sorted(map(as_recipe, plain))), 8)
        folder = Path(first.run.dir) if first.run.dir else ROOT / name / f"sweep-{digest}"
        keys = short_keys(key for job in jobs for key in job.values)
        sweep, names = cls(folder, []), set[str]()
        for number, job in enumerate(jobs, 1):
            label = as_overrides({keys[key]: value for key, value in job.values.items()})
            own = folder_name(label)
            if own in names:  # `a/b` and `a b` are both a-b
                own += f"-{_digest(label, 6)}"
            names.add(own)
            sweep.add(number, job, label, own)
        return sweep

    def add(self, number: int, job: Job, label: str, name: str) -> Entry:
        """Give a job its place: the folder `name`."""
        place = job.config.run.model_copy(update={"dir": str(self.folder / name)})
        alone = {"run": place, "resume": True, "sweep": SweepConfig(), "search": None}
        entry = Entry(number, job, label, job.config.model_copy(update=alone))
        self.entries.append(entry)
        return entry

    def check_folder(self, config: Config) -> None:
        """Raise UserError for a folder of something else; `config` is that of any job, as it was typed."""
        # Of a folder that nobody named, only whether its name leads elsewhere by a link. A run has a lock, too.
        ours = any((self.folder / name).is_file() for name in (SUMMARY, LOCK)) and not is_run(self.folder)
        if config.run.dir is None or not ours:
            Run.check(config)

    def check(self) -> None:
        """See which jobs are done already; nothing is written.

        Raises:
            UserError: for a folder of something else, or of jobs of these names with other configurations.
        """
        self.check_folder(self.entries[0].job.config)
        problems: list[Problem] = []
        for entry in self.entries:
            try:
                run = Run.to_resume(entry.config)
            except UserError as error:
                problems += [problem for problem in error.problems if problem.key != "resume"]
                continue
            if run and run.manifest.get("status") == "done":
                entry.status = "done"
        self._refuse(problems, "this configuration")

    def check_data(self, digests: list[dict[str, str]]) -> None:
        """Raise UserError if jobs were started with other data; `digests` are the files of each job."""
        problems: list[Problem] = []
        for entry, files in zip(self.entries, digests, strict=True):
            try:
                if run := Run.to_resume(entry.config):
                    run.check_data(files)
            except UserError as error:
                problems += error.problems
        self._refuse(problems, "the data")

    def _refuse(self, problems: list[Problem], subject: str) -> None:
        if problems:
            here = Problem("run.dir", f"{self.folder} holds other jobs of these names", hint="Name another folder.")
            raise UserError([*dict.fromkeys(problems), here], subject)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the folder, and hold it against a second sweep.

        The children hold it too: a sweep that was killed keeps it until the last of them has saved.

        Raises:
            UserError: if another sweep holds it, or it cannot be made or locked.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(Problem("run.dir", f"{self.folder}: {error.strerror}")) from error
        with held(self.folder, "another sweep"):
            yield


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """The last name of each key, or the whole key where two end alike."""
    keys = dict.fromkeys(keys)
    leaves = [key.rpartition(".")[2] for key in keys]
    return {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)}


def folder_name(label: str) -> str:
    """A folder's name for the values of a job, in letters of any script that a shell leaves alone."""
    parts = [re.sub(r"[^\w.-]+", "-", part).strip("-") for part in label.split(" ")]
    name = "_".join(part for part in parts if part)
    if len(name.encode()) <= LONGEST:
        return name
    return f"{name.encode()[: LONGEST - 7].decode(errors='ignore')}-{_digest(label, 6)}"


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
