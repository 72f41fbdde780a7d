"""Rows as they are read: a Table of columns, chunk by chunk from a Source."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from llmft.schema.problem import Problem

SHOWN = 5  # problems of one kind and file that are listed; the rest are counted
MANY = 1000  # problems after which no more are looked for: a file may have more rows than memory holds
CHUNK = 1000  # rows: finding the place of a chunk costs little beside reading it, and a mark weighs little beside it


@dataclass
class Table:
    """Columns of equal length, before any role is given to them."""

    columns: dict[str, list[Any]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    """`FILE:LINE` for text files, as an editor counts; `FILE:ROW`, from 1, where there are no lines."""
    left_out: Counter[str] = field(default_factory=Counter)
    """What of the file is not a row, such as empty lines, and how many there were of each kind."""
    index: list[str] = field(default_factory=list)
    """Columns that the file itself says are not data but the names or numbers of its rows."""

    def __len__(self) -> int:
        return len(self.ids)

    def extend(self, other: "Table") -> None:
        """Append the rows of `other`; a column that one of the two lacks is filled with None."""
        for name in dict.fromkeys([*self.columns, *other.columns]):
            mine = self.columns.setdefault(name, [None] * len(self))
            mine += other.columns.get(name, [None] * len(other))
        self.ids += other.ids
        self.left_out += other.left_out
        self.index += [name for name in other.index if name not in self.index]

    def without(self, names: Collection[str]) -> "Table":
        """The same rows without some of the columns."""
        return Table({name: values for name, values in self.columns.items() if name not in names}, self.ids)

    def take(self, rows: Sequence[int]) -> "Table":
        """Some of the rows, by number."""
        return Table(
            {name: [column[row] for row in rows] for name, column in self.columns.items()},
            [self.ids[row] for row in rows],
        )


def listed(problems: list[Problem]) -> list[Problem]:
    """At most SHOWN problems, and a line that counts the others."""
    if len(problems) <= SHOWN:
        return problems
    rest = len(problems) - SHOWN
    what = f"and {rest if len(problems) < MANY else 'many'} more like these"
    return [*problems[:SHOWN], Problem(problems[SHOWN].key.rpartition(":")[0], what, mistakes=rest)]


class Mark(NamedTuple):
    """Where a chunk begins."""

    position: int
    """What the reader of the file needs to go there."""
    line: int
    """The line of the first row, or its number where there are no lines; from 1."""


START = Mark(0, 1)


class Source(Protocol):
    """A file of rows."""

    @property
    def file(self) -> Path:
        """Where it lies."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """Tables of at most CHUNK rows, each with the mark where it begins: all of them, or those from `start` on.

        Raises:
            UserError: after the last chunk, with the line of each row that cannot be read.
        """


@dataclass(frozen=True)
class FileGroup:
    """Files that are read together, for a `Source` of its own."""

    files: Sequence[Path]
    names: Sequence[str]
    """The files as row ids and messages name them."""
    encoding: str

    @property
    def file(self) -> Path:
        """The first of them."""
        return self.files[0]
