"""Streaming: train is read while the model trains, so that only a few chunks of it are in memory at once."""

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from tqdm import tqdm

from llmft.data import checks, clean
from llmft.data.arrow import RowsDigest, to_arrow, to_dataset
from llmft.data.cell_values import classes
from llmft.data.json_files import JsonList
from llmft.data.read import chunks, files_of
from llmft.data.roles import Kinds, assign
from llmft.data.source import MANY, Mark, Source, Table, listed
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Failure, Problem, UserError

SAMPLE = 10_000  # rows to which a task fits its scales and vocabularies


@dataclass(frozen=True)
class Chunk:
    """A piece of a file: where it is, and how many rows it has."""

    source: Source
    mark: Mark
    rows: int
    """The number of rows, without those that are left out."""


@dataclass(frozen=True)
class Survey:
    """What one pass over all rows has found."""

    sample: Table
    """A random sample of rows, in order, with every label in it."""
    known: set[str]
    """The keys of inputs in other splits that are also here."""
    notes: list[str]
    """What the user should know, a line each."""
    sha256: str
    """The `RowsDigest` of all rows."""


class Stream:
    """The rows of `dataset.train`, chunk by chunk, in any order, any number of times.

    Call `survey` first: it checks every row, and counts those that stay.
    """

    def __init__(self, config: DatasetConfig, roles: dict[str, Column]) -> None:
        """Read all files once to find the chunks and the types of their columns.

        Raises:
            UserError: with the file and line of every row that cannot be read.
        """
        self.config, self.roles = config, roles
        self.files = files_of(config, "train", config.train or [])
        self.stamps = {file: _stamp(file) for file in self.files}
        self.kinds: dict[str, Kinds] = {}
        self.chunks: list[Chunk] = []
        self.schema: pyarrow.Schema | None = None
        found = chunks(config, self.files)
        for source, mark, table in tqdm(found, "reading train", unit=" chunks", disable=None, leave=False):
            if isinstance(source, JsonList):
                what, hint = "is one list, which cannot be read in parts", "Write one object a line."
                raise UserError(Problem(source.name, what, hint=hint), "the data")
            for name, values in table.columns.items():
                self.kinds.setdefault(name, Kinds()).add(values, table.ids)
            self.chunks.append(Chunk(source, mark, len(table)))

    def __len__(self) -> int:
        return sum(chunk.rows for chunk in self.chunks)

    def __iter__(self) -> Iterator[datasets.Dataset]:
        """All chunks, in the order of the files."""
        for chunk in self.chunks:
            yield to_dataset(self._rows(chunk), self.schema)

    def survey(self, inputs: set[str]) -> Survey:
        """Check every row.

        Args:
            inputs: `checks.input_keys` of the other splits.

        Raises:
            UserError: with the problems of the columns, or else those of the rows, by file and line.
        """
        self._assigned(Table())  # raises for a missing column once, not for every chunk
        sample = Sample(max(SAMPLE, self.config.max_rows or 0), self.config.split.seed)
        known: set[str] = set()
        problems: list[Problem] = []
        counts = Counter[str]()
        left: list[Chunk] = []
        digest = RowsDigest(self.roles)
        for chunk in tqdm(self.chunks, "checking train", unit=" chunks", disable=None, leave=False):
            if len(problems) >= MANY:
                break
            try:
                whole, mended = clean.repair(self._read(chunk), self.roles, self.config.clean)
                drop = (self.config.drop_empty, self.config.drop_unlabeled)
                table, faults, dropped = checks.complete_rows(whole, self.roles, "train", *drop)
                problems += [problem for kind in faults for problem in kind]
                self._widen(table)
            except UserError as error:
                problems += error.problems
                continue
            table, left_out = clean.without_flawed(table, self.roles, self.config.clean)
            counts += dropped + mended + left_out
            if not problems and len(table):
                left.append(replace(chunk, rows=len(table)))
                known.update(inputs.intersection(checks.input_keys(table, self.roles)))
                sample.add(table)
                digest.add(to_arrow(table))
        if problems:
            raise UserError([*listed(problems), *checks.advice(problems, self.roles)], "the data")
        self.chunks = left
        return Survey(sample.table(), known, clean.change_notes("train", counts), digest.hexdigest())

    def windows(self, order: Sequence[int], first: int, last: int, size: int) -> Iterator[datasets.Dataset]:
        """Rows `first` to `last` (exclusive) of the chunks in some order, `size` rows at a time.

        Args:
            order: indices of chunks.
        """
        ends = list(accumulate(self.chunks[number].rows for number in order))
        for start in range(first, last, size):
            stop = min(start + size, last)
            window = Table()
            for place in range(bisect_right(ends, start), len(order)):
                rows = self._rows(self.chunks[order[place]])
                begin = ends[place] - len(rows)
                window.extend(rows.take(range(max(start - begin, 0), min(stop - begin, len(rows)))))
                if ends[place] >= stop:
                    break
            yield to_dataset(window, self.schema)

    def _rows(self, chunk: Chunk) -> Table:
        table = clean.repair(self._read(chunk), self.roles, self.config.clean)[0]
        table = checks.complete_rows(table, self.roles, "train", drop_empty=True, drop_unlabeled=True)[0]
        return clean.without_flawed(table, self.roles, self.config.clean)[0]

    def _read(self, chunk: Chunk) -> Table:
        file = chunk.source.file
        if _stamp(file) != self.stamps[file]:
            raise Failure(f"{file} has changed since it was first read")
        _, table = next(chunk.source.chunks(chunk.mark))
        return self._assigned(table)

    def _assigned(self, part: Table) -> Table:
        table = Table({name: [] for name in self.kinds})
        table.extend(part)
        return assign(table, self.config, self.roles, "train", self.kinds)

    def _widen(self, table: Table) -> None:
        """Widen the types of the columns so that these rows fit, such as from integers to floats."""
        found = to_arrow(table).schema
        try:
            self.schema = pyarrow.unify_schemas([self.schema or found, found], promote_options="permissive")
        except pyarrow.ArrowException as error:
            what = f"does not fit the rows before it: {str(error).splitlines()[0]}"
            raise UserError(Problem(table.ids[0], what), "the data") from error


def _stamp(file: Path) -> tuple[int, int] | None:
    """Size and time of a file, which change with its content; None if it is gone."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


Row = tuple[int, str, dict[str, Any]]  # index, id, values


class Sample:
    """A random sample of `size` rows, and besides it the first row of each label."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.random = random.Random(seed)
        self.seen = 0
        self.drawn: list[Row] = []
        self.first: dict[str, Row] = {}

    def add(self, table: Table) -> None:
        """Add rows. At any time, every row so far is in the sample with the same probability (Vitter's algorithm R)."""
        for place in range(len(table)):
            where = self.seen if self.seen < self.size else self.random.randrange(self.seen + 1)
            found = classes(table.columns["label"][place]) if "label" in table.columns else []
            new = [name for name in found if name not in self.first]
            if where < self.size or new:
                row = (self.seen, table.ids[place], {name: values[place] for name, values in table.columns.items()})
                if where < self.size:
                    self.drawn[where : where + 1] = [row]
                self.first |= dict.fromkeys(new, row)
            self.seen += 1

    def table(self) -> Table:
        """The sample, in the order of the rows."""
        rows = {row[0]: row for row in (*self.drawn, *self.first.values())}
        found = [rows[number] for number in sorted(rows)]
        names = list(found[0][2]) if found else []
        return Table({name: [row[2][name] for row in found] for name in names}, [row[1] for row in found])
