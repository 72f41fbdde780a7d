"""The jobs of a sweep, and the search space from which a search draws its trials."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError


@dataclass(frozen=True)
class Job:
    """One combination of the swept values, with its config."""

    values: dict[str, Any]
    """Swept key or group -> its value in this job, in the order of the overrides."""
    config: Config
    duplicates: int = 0
    """Later combinations that lead to the same config. They get no job of their own."""
    recipe: Callable[[Config], str] | None = field(default=None, compare=False)
    """Writes a config of this job as a recipe, which is shorter than the list of all keys."""


def as_overrides(values: dict[str, Any]) -> str:
    """The values as they are typed, on one line: `optimizer.lr=1e-05 seed=1`."""
    return " ".join(f"{key}={format_value(value)}" for key, value in values.items())


def format_value(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{format_value(item)}' for key, item in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


@contextmanager
def collect_problems(wrong: dict[Problem, list[str]], job: str) -> Iterator[None]:
    """Collect the problems of a job for `in_jobs` instead of raising them, so that all jobs are checked."""
    try:
        yield
    except UserError as error:
        for problem in error.problems:
            wrong.setdefault(problem, []).append(job)


def in_jobs(wrong: dict[Problem, list[str]], count: int) -> list[Problem]:
    """Each problem with the jobs that have it, unless all `count` jobs have it."""
    problems = []
    for problem, names in wrong.items():
        jobs = f"in {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        where = f"{problem.where}, {jobs}" if problem.where else jobs
        problems.append(problem if len(names) == count else problem._replace(where=where))
    return problems


DIGITS = 4  # significant digits of a drawn number: enough to tell trials apart, and short enough to type


@dataclass(frozen=True)
class Dimension:
    """A key that is searched: a list of choices, each as it is typed, or a range of numbers."""

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    """Draw the logarithm uniformly: as many values from 1e-5 to 1e-4 as from 1e-4 to 1e-3."""
    step: int | None = None
    """Integers only: `low`, `low + step`, ..."""

    def format(self, value: Any) -> str:
        """A value as it is typed on the command line."""
        if self.choices:
            return str(value)
        if self.step:
            return str(int(value))
        return repr(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))

    @property
    def samples(self) -> list[str]:
        """Values to check before a search starts: all choices, or the middle and both ends of a range."""
        if self.choices:
            return list(self.choices)
        if self.step:
            return [self.format(self.low), self.format(self.high)]
        middle = (self.low * self.high) ** 0.5 if self.log else (self.low + self.high) / 2
        return [self.format(value) for value in (middle, self.low, self.high)]

    def __str__(self) -> str:
        if self.choices:
            return ", ".join(self.choices[:8]) + (f", ... ({len(self.choices)})" if len(self.choices) > 8 else "")
        if self.step:
            return f"{self.low:g} to {self.high:g}, whole" + (f", every {self.step}" if self.step > 1 else "")
        return f"{self.low:g} to {self.high:g}" + (", by its logarithm" if self.log else "")


@dataclass(frozen=True)
class Space:
    """A search space: its dimensions, and how a point in it becomes a job."""

    dimensions: list[Dimension]
    make: Callable[[dict[str, str]], Job]
    """From the value of each key, as it is typed, to a checked job. Raises UserError for an invalid combination."""
    first: Job
    """One of its jobs."""
