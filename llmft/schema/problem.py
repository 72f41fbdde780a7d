"""What is wrong with the user's input: said all at once, each with where and what to write instead."""

import re
from importlib.util import find_spec
from typing import Any, NamedTuple

ONE = {"are": "is", "were": "was", "have": "has"}


class Problem(NamedTuple):
    """One mistake."""

    key: str
    """The configuration key, or the file and row."""
    what: str
    """What is wrong, in a few words; no full stop."""
    where: str = ""
    """`command line`, or `FILE:LINE`."""
    hint: str = ""
    """What to write instead, a full sentence."""
    mistakes: int = 1
    """How many mistakes it stands for: none for advice on the others, several for a line that counts the rest."""

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        hint = f". {self.hint}" if self.hint else ""
        what = self.what.removesuffix(".") if where or hint else self.what  # a library's may end in one
        return f"{what}{where}{hint}"


class Failure(Exception):
    """The run cannot go on, and nobody's input was malformed: printed without a traceback, exit code 1."""


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
        found = plural(sum(problem.mistakes for problem in self.problems), "problems")
        width = min(max(len(problem.key) for problem in self.problems), 40)
        lines = [f"  {problem.key:<{width}}  {problem}" for problem in self.problems]
        return "\n".join([f"{found} in {self.subject}", *lines])


def plural(number: float, what: str) -> str:
    """A number of things, of which `what` speaks in the plural: `2 rows were left out`, and `1 row was left out`."""
    if number != 1:
        return f"{number:,} {what}" if isinstance(number, int) else f"{number:g} {what}"
    what = re.sub(r"(\w)s\b", r"\1", what, count=1)
    return "1 " + re.sub(r"\b(are|were|have)\b", lambda verb: ONE[verb[0]], what)


def lacking(key: str, choice: str, package: str, extra: str) -> list[Problem]:
    """A problem if `choice`, a value of `key`, needs a package that is not installed."""
    if find_spec(package) is not None:
        return []
    what = f"{choice} needs the package {package}, which is not installed"
    return [Problem(key, what, hint=f"Install it: pip install 'llmft[{extra}]'")]
