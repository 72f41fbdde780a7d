"""Mistakes in the user's input: all reported at once, each with its place and what to write instead."""

import re
import textwrap
from importlib.util import find_spec
from typing import Any, NamedTuple

ONE = {"are": "is", "were": "was", "have": "has"}


class Problem(NamedTuple):
    """One mistake."""

    key: str
    """The config key, or the file and row."""
    what: str
    """What was expected and what was received, in a few words; no full stop."""
    where: str = ""
    """`command line`, or `FILE:LINE`."""
    hint: str = ""
    """What to write instead, a full sentence."""
    mistakes: int = 1
    """How many mistakes it stands for: 0 for a hint about the others, several for a line that counts the rest."""

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        hint = f". {self.hint}" if self.hint else ""
        what = self.what.removesuffix(".") if where or hint else self.what  # messages of libraries may end in one
        return f"{what}{where}{hint}"


class Failure(Exception):
    """The run cannot continue, and no input was wrong: printed without a traceback, exit code 1."""


class Stopped(Exception):
    """A signal stopped the run, after a checkpoint was saved from which it can be resumed. Exit code 75."""


class Pruned(Exception):
    """A trial of a search was stopped because it is worse than the others."""


class UserError(Exception):
    """The user's input is wrong: printed without a traceback, exit code 2."""

    def __init__(self, problems: list[Problem] | Problem, subject: str = "this configuration") -> None:
        self.problems = [problems] if isinstance(problems, Problem) else problems
        self.subject = subject
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the problems, from which the process that receives the error builds it again."""
        return type(self), (self.problems, self.subject)

    def __str__(self) -> str:
        """One line per problem, so that `grep` finds whole ones in a log."""
        width = self._key_width()
        return "\n".join([self._title(), *(f"  {problem.key:<{width}}  {problem}" for problem in self.problems)])

    def on_terminal(self, columns: int) -> str:
        """As `str`, wrapped to the width of a terminal, with each hint on its own line."""
        width = self._key_width()
        indent = " " * (width + 4)
        wrapper = textwrap.TextWrapper(
            columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        lines = [self._title()]
        for problem in self.problems:
            lines.append(wrapper.fill(f"  {problem.key:<{width}}  {problem._replace(hint='')}"))
            if problem.hint:
                lines.append(wrapper.fill(indent + problem.hint))
        return "\n".join(lines)

    def _title(self) -> str:
        return f"{plural(sum(problem.mistakes for problem in self.problems), 'problems')} in {self.subject}"

    def _key_width(self) -> int:
        return min(max(len(problem.key) for problem in self.problems), 40)


def plural(number: float, what: str) -> str:
    """A number with its noun, which is given in the plural: `2 rows were left out`, and `1 row was left out`."""
    if number != 1:
        return f"{number:,} {what}" if isinstance(number, int) else f"{number:g} {what}"
    what = re.sub(r"(\w)s\b", r"\1", what, count=1)
    return "1 " + re.sub(r"\b(are|were|have)\b", lambda verb: ONE[verb[0]], what)


def missing_package(key: str, choice: str, package: str, extra: str) -> list[Problem]:
    """A problem if `choice`, a value of `key`, needs a package that is not installed; else an empty list."""
    if find_spec(package) is not None:
        return []
    what = f"{choice} needs the package {package}, which is not installed"
    return [Problem(key, what, hint=f"Install it: pip install 'llmft[{extra}]'")]
