"""A file that can be read a chunk at a time, from any chunk on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from llmft.data.table import Table

CHUNK = 1000  # rows: finding the place of a chunk costs little beside reading it, and a mark weighs little beside it


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
            UserError: after the last chunk, with the line of each row that can't be read.
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
