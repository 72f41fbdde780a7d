"""Columns of ids: learned vocabularies, hashed values, and lists.

Ids of a column: 0 is padding and a missing value, 1 an unknown value, 2 and more are the values, the most frequent
first, or the buckets of a hash.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy

from llmft.data.cell_values import category, list_in

PADDING, UNKNOWN, FIRST = 0, 1, 2
SEPARATORS = ("|", ";", ",", " ")
MOST = 1_000_000  # values of a column whose counts are kept, some 100 MB; of more, all are hashed
BUCKETS = 2**20  # of a column with more than MOST values


@dataclass
class IdColumn:
    """What was learned from a column of ids."""

    values: list[str] = field(default_factory=list)
    """Those with an id of their own, the most frequent first; empty if they are hashed."""
    buckets: int = 0
    """Buckets of the hash; 0 without."""
    width: int = 1
    """Ids that a model reads from a row."""
    separator: str = ""
    """The text between the values of a list; empty for a column of one value."""
    shares: str = ""
    """The column whose vocabulary it has; empty for its own."""
    latest: bool = False
    """Whether the last values of a list are read, the latest first, as of a history; else the first ones."""

    @property
    def size(self) -> int:
        """Vectors that its ids need, without that of padding."""
        return (self.buckets or len(self.values)) + 1

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {value: number for number, value in enumerate(self.values, FIRST)}

    @cached_property
    def _seen(self) -> dict[Any, int]:
        """The ids of cells as they were written, so that each form is brought into its normal one once."""
        return {None: PADDING}

    def id_of(self, cell: Any) -> int:
        """The id of a cell."""
        value = category(cell)
        if not value:
            return PADDING
        return FIRST + stable_hash(value) % self.buckets if self.buckets else self._ids.get(value, UNKNOWN)

    def ids(self, cells: Sequence[Any]) -> list[int]:
        """The ids of cells."""
        seen = self._seen
        if len(seen) > MOST:
            seen.clear()
        for cell in set(cells).difference(seen):
            seen[cell] = self.id_of(cell)
        return [seen[cell] for cell in cells]

    def encode(self, cells: Sequence[Any], vocabulary: "IdColumn | None" = None) -> numpy.ndarray:
        """(rows, width) int64, padded on the right.

        Args:
            vocabulary: the column that `shares` names.
        """
        own = vocabulary or self
        if not self.separator:
            return numpy.array(own.ids(cells), dtype=numpy.int64).reshape(-1, 1)
        found = numpy.zeros((len(cells), self.width), dtype=numpy.int64)
        for line, cell in zip(found, cells, strict=True):
            ids = [number for number in own.ids(split(cell, self.separator)) if number]
            read = ids[: -self.width - 1 : -1] if self.latest else ids[: self.width]
            line[: len(read)] = read
        return found


def stable_hash(value: str) -> int:
    """64 bits of BLAKE2b: the same on every machine, in every version."""
    return int.from_bytes(blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def split(cell: Any, separator: str) -> list[Any]:
    """The values of a cell with a list, some of them perhaps empty: a list of JSON, or a text with separators."""
    if isinstance(cell, str):
        found = list_in(cell) if cell.startswith("[") else None
        members = cell.split(separator) if found is None else found
    elif isinstance(cell, list):
        members = cell
    else:
        members = [] if cell is None or cell != cell else [cell]
    return [member if isinstance(member, str | int | float) else category(member) for member in members]


def separator_of(cells: Iterable[Any]) -> str:
    """The first of SEPARATORS that some cell has, which is not a list of JSON; `|` if none has any."""
    texts = [cell for cell in cells if isinstance(cell, str) and list_in(cell) is None]
    return next((sign for sign in SEPARATORS if any(sign in text.strip() for text in texts)), "|")


class Counts:
    """Counts the values of a column over any number of rows; of more than MOST different ones it gives up."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.many = False

    def add(self, cells: Iterable[Any]) -> None:
        """Count the values of some cells."""
        if self.many:
            return
        for cell, count in Counter(cells).items():
            if value := category(cell):
                self.found[value] += count
        if len(self.found) > MOST:
            self.many, self.found = True, Counter()

    def kept(self, min_count: int) -> list[str]:
        """The values of at least `min_count` rows, the most frequent first, and of equally frequent ones by name."""
        pairs = [(value, count) for value, count in self.found.items() if count >= min_count]
        return [value for value, _ in sorted(pairs, key=lambda pair: (-pair[1], pair[0]))]
