"""Rows as they are read: a Source yields Tables of columns, chunk by chunk."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from llmft.schema.problem import Problem

SHOWN = 5  # problems of one kind and file that are listed; the others are counted
MANY = 1000  # problems after which a reader stops looking: a file may have more bad rows than memory can hold
CHUNK = 1000  # rows: enough that seeking to a chunk, and remembering its position, costs little compared with reading


class Rows(Protocol):
    """Rows by role, as the checks of a task take them: a Table, or a Dataset of the library datasets."""

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, `id` among them."""

    def __len__(self) -> int:
        """The number of rows."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows, a dict by column each."""

    def __getitem__(self, key: Any) -> Any:
        """The values of a column by name; for a slice of rows, their values by column."""


@dataclass
class Table:
    """Columns of equal length under the names of the file, or later under the names of roles."""

    columns: dict[str, list[Any]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    """`FILE:LINE` for text files, as an editor counts; `FILE:ROW`, from 1, for files without lines."""
    left_out: Counter[str] = field(default_factory=Counter)
    """What in the file is not a row, such as empty lines: the number of each kind, by the text of a note."""
    index: list[str] = field(default_factory=list)
    """Columns that the file itself marks as the index of its rows, not as data."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, `id` among them."""
        return ["id", *self.columns]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = self.column_names
        return (dict(zip(names, row, strict=True)) for row in zip(self.ids, *self.columns.values(), strict=True))

    def __getitem__(self, key: str | slice) -> Any:
        """The values of a column by name; for a slice of rows, their values by column."""
        if isinstance(key, slice):
            return {name: self[name][key] for name in self.column_names}
        return self.ids if key == "id" else self.columns[key]

    def extend(self, other: "Table") -> None:
        """Append the rows of `other`. A column that only one of the two has is filled with None."""
        for name in dict.fromkeys([*self.columns, *other.columns]):
            mine = self.columns.setdefault(name, [None] * len(self))
            mine += other.columns.get(name, [None] * len(other))
        self.ids += other.ids
        self.left_out += other.left_out
        self.index += [name for name in other.index if name not in self.index]

    def without(self, names: Collection[str]) -> "Table":
        """The rows without these columns."""
        return Table({name: values for name, values in self.columns.items() if name not in names}, self.ids)

    def take(self, rows: Sequence[int]) -> "Table":
        """The rows with these indices."""
        return Table(
            {name: [column[row] for row in rows] for name, column in self.columns.items()},
            [self.ids[row] for row in rows],
        )


def listed(problems: list[Problem]) -> list[Problem]:
    """The first SHOWN problems, and a line with the number of the others."""
    if len(problems) <= SHOWN:
        return problems
    rest = len(problems) - SHOWN
    what = f"and {rest if len(problems) < MANY else 'many'} more like these"
    return [*problems[:SHOWN], Problem(problems[SHOWN].key.rpartition(":")[0], what, mistakes=rest)]


class Mark(NamedTuple):
    """Where a chunk begins."""

    position: int
    """The position to seek to, as the stream's `tell` gave it."""
    line: int
    """The line of the first row, or its number in a file without lines; from 1."""


START = Mark(0, 1)


class Source(Protocol):
    """A file with rows. Each format has a class of this kind; see formats.py."""

    @property
    def file(self) -> Path:
        """Its path."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """Tables of at most CHUNK rows, each with the mark where it begins: all, or those from `start` on.

        Raises:
            UserError: after the last chunk, with the line of every row that cannot be read.
        """


@runtime_checkable
class NamesImages(Protocol):
    """A `Source` that makes a part of its rows, such as masks out of polygons, which takes longer than to read them."""

    def named(self) -> Iterator[tuple[Mark, Table]]:
        """As `Source.chunks`, with the columns of images that are files alone; problems are left to `chunks`."""


@dataclass(frozen=True)
class FileGroup:
    """Several files that are one `Source`, such as two aligned files."""

    files: Sequence[Path]
    names: Sequence[str]
    """The files as row ids and messages name them."""
    encoding: str

    @property
    def file(self) -> Path:
        """The first file."""
        return self.files[0]
