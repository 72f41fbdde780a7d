"""One job of a sweep."""

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
