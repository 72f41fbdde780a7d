"""The jobs of a sweep, and the space of keys that a search draws its jobs from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError


@dataclass(frozen=True)
class Job:
    """A combination of the swept values, and the configuration that it means."""

    values: dict[str, Any]
    """Swept key or group -> its value in this job, in the order of the words."""
    config: Config
    twins: int = 0
    """Later combinations that mean the same configuration; they have no job of their own."""
    recipe: Callable[[Config], str] | None = field(default=None, compare=False)
    """Writes a configuration of this job as a recipe that is shorter than all its keys."""


def told(values: dict[str, Any]) -> str:
    """The values as one types them, on one line: `optimizer.lr=1e-05 seed=1`."""
    return " ".join(f"{key}={shown(value)}" for key, value in values.items())


def shown(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{shown(item)}' for key, item in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


@contextmanager
def noting(wrong: dict[Problem, list[str]], job: str) -> Iterator[None]:
    """Note the problems of a job for `in_jobs` instead of raising them: the other jobs are looked at too."""
    try:
        yield
    except UserError as error:
        for problem in error.problems:
            wrong.setdefault(problem, []).append(job)


def in_jobs(wrong: dict[Problem, list[str]], count: int) -> list[Problem]:
    """Problems with the jobs that they belong to, unless they belong to all `count` of them."""
    problems = []
    for problem, names in wrong.items():
        jobs = f"in {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        where = f"{problem.where}, {jobs}" if problem.where else jobs
        problems.append(problem if len(names) == count else problem._replace(where=where))
    return problems


DIGITS = 4  # of a number that is drawn: what differs less is the same setting, and can be typed


@dataclass(frozen=True)
class Dimension:
    """A key, with the values that it may take, each as one types it, or with a range of numbers."""

    key: str
    words: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    """Draw the logarithm evenly: as many values from 1e-5 to 1e-4 as from 1e-4 to 1e-3."""
    step: int | None = None
    """Whole numbers only: `low`, `low + step`, ..."""

    def word(self, value: Any) -> str:
        """A value as one types it."""
        if self.words:
            return str(value)
        if self.step:
            return str(int(value))
        return repr(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))

    @property
    def samples(self) -> list[str]:
        """Values that show whether all of them are right: all words, or both ends of a range and what lies between."""
        if self.words:
            return list(self.words)
        if self.step:
            return [self.word(self.low), self.word(self.high)]
        middle = (self.low * self.high) ** 0.5 if self.log else (self.low + self.high) / 2
        return [self.word(value) for value in (middle, self.low, self.high)]

    def __str__(self) -> str:
        if self.words:
            return ", ".join(self.words[:8]) + (f", ... ({len(self.words)})" if len(self.words) > 8 else "")
        if self.step:
            return f"{self.low:g} to {self.high:g}, whole" + (f", every {self.step}" if self.step > 1 else "")
        return f"{self.low:g} to {self.high:g}" + (", by its logarithm" if self.log else "")


@dataclass(frozen=True)
class Space:
    """A search: its dimensions, and how a point of it becomes a job."""

    dimensions: list[Dimension]
    make: Callable[[dict[str, str]], Job]
    """From the word of each key to a checked job; raises UserError for a combination that is none."""
    first: Job
    """One of its jobs."""
