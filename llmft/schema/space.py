"""What a search looks through: keys, each with values or a range."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmft.schema.job import Job

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
