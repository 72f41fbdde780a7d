"""What is wrong with the user's input: said all at once, each with where and what to write instead."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One mistake."""

    key: str
    """The configuration key, or the file and row."""
    what: str
    """What is wrong, in a few words; no full stop."""
    where: str = ""
    """`command line`, or `FILE:LINE`."""
    hint: str = ""
    """What to write instead, a full sentence."""

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        hint = f". {self.hint}" if self.hint else ""
        return f"{self.what}{where}{hint}"


class Failure(Exception):
    """The run can't go on, and nobody's input was malformed: printed without a traceback, exit code 1."""


class Stopped(Exception):
    """A signal stopped the run; a checkpoint is committed, and the run can go on from there. Exit code 75."""


class Pruned(Exception):
    """A trial of a search that is worse than the others, and given up."""


class UserError(Exception):
    """The user's input is wrong: the command prints this without a traceback and exits with 2."""

    def __init__(self, problems: list[Problem] | Problem, subject: str = "this configuration") -> None:
        self.problems = [problems] if isinstance(problems, Problem) else problems
        self.subject = subject
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Built again from its problems where another process gets it."""
        return type(self), (self.problems, self.subject)

    def __str__(self) -> str:
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        width = min(max(len(problem.key) for problem in self.problems), 40)
        lines = [f"  {problem.key:<{width}}  {problem}" for problem in self.problems]
        return "\n".join([f"{count} in {self.subject}", *lines])
