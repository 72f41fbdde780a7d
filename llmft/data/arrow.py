"""Rows as Arrow tables: columns of one type each, files that are mapped into memory, and a digest of the values."""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from llmft.data.cell_values import category, is_missing
from llmft.data.source import Table
from llmft.schema.column import Column
from llmft.schema.problem import Problem, UserError

UNFIT = (pyarrow.ArrowException, UnicodeError, OverflowError)
BATCH = 10_000  # rows whose values are Python objects at one time
NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)[ T]00:00(:00(\.0+)?)?")  # a day, as spreadsheets and pandas write one


def write_table(table: pyarrow.Table, file: Path) -> None:
    """Write a table into a file of its own."""
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


class TableWriter:
    """A table that is written a part at a time, for `read_table` to map into memory."""

    def __init__(self, file: Path, schema: pyarrow.Schema) -> None:
        self.sink = pyarrow.OSFile(str(file), "wb")
        self.writer = pyarrow.ipc.new_file(self.sink, schema)

    def write(self, table: pyarrow.Table) -> None:
        """Write some more rows."""
        self.writer.write_table(table)

    def close(self) -> None:
        """Write what makes the file whole."""
        self.writer.close()
        self.sink.close()


def read_table(file: Path) -> pyarrow.Table:
    """Map a table into memory: its pages are read from the disk as they are needed, and shared between processes."""
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(file))).read_all()


def read_dataset(file: Path) -> datasets.Dataset:
    """The same as a Dataset. It is known by its file: `datasets` would know it by its rows, and read them all."""
    return datasets.Dataset(read_table(file), fingerprint=sha256(str(file.resolve()).encode()).hexdigest()[:16])


def to_arrow(table: Table, schema: pyarrow.Schema | None = None) -> pyarrow.Table:
    """The rows, and their ids as the column `id`.

    Args:
        schema: the type of each column, where `table` is only a part of the rows. Unset: taken from the values.

    Raises:
        UserError: naming the first row that does not go with those before it.
    """
    columns = {}
    for name, values in {"id": table.ids, **table.columns}.items():
        try:
            columns[name] = pyarrow.array(values, type=schema.field(name).type if schema else None)
        except UNFIT as error:
            raise UserError(_unfit(table, name, values, str(error)), "the data") from error
    return pyarrow.table(columns)


def to_dataset(table: Table, schema: pyarrow.Schema | None = None) -> datasets.Dataset:
    """The same as a Dataset, which takes 3 ms to make."""
    return datasets.Dataset(to_arrow(table, schema))


def _unfit(table: Table, name: str, values: list[Any], why: str) -> Problem:
    """The first row that does not go with those before it, such as a list among numbers or half a surrogate pair."""
    low, high = 0, len(values)  # values[:low] fit together, values[:high] don't
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pyarrow.array(values[:middle])
            low = middle
        except UNFIT:
            high = middle
    return Problem(table.ids[low], f"{name} does not go with the rows before it: {why.splitlines()[0]}")


class RowsDigest:
    """The sha256 of rows that come a part at a time, in their order.

    It is of the roles and their values in normal form, and not of the names and formats of files or of ids. A workbook
    holds 3.0 where a csv file has `3`, nothing where that has an empty cell or `NA`, and midnight where that has a day:
    such cells are the same. `001` is none of `1`, since it is a text. A role without any value counts as one that is
    not there.
    """

    def __init__(self, roles: Mapping[str, Column]) -> None:
        """Begin without rows; `roles` tell JSON and tables from texts."""
        self.roles = roles
        self.rows = 0
        self._columns: dict[str, Any] = {}
        self._filled: set[str] = set()
        self._document: Any = None

    def add(self, table: pyarrow.Table) -> None:
        """Add rows with a column for each role; `id` is not looked at."""
        for batch in table.to_batches(max_chunksize=BATCH):
            for role in batch.schema.names:
                if role == "id":
                    continue
                column = batch.column(role)
                if pyarrow.types.is_struct(column.type):
                    names = [field.name for field in column.type]
                    for name, cells in zip(names, column.flatten(), strict=True):
                        self._update(f"{role}.{name}", _cells(cells))
                else:
                    self._update(role, self._values(role, column))
            self.rows += batch.num_rows

    def hexdigest(self) -> str:
        """The sha256 of all rows so far."""
        columns = {name: self._columns[name].hexdigest() for name in sorted(self._filled)}
        return sha256(json.dumps([self.rows, columns], ensure_ascii=False).encode()).hexdigest()

    def _update(self, name: str, values: list[Any]) -> None:
        if name not in self._columns:
            self._columns[name] = sha256(b"null," * self.rows)
        if any(value is not None for value in values):
            self._filled.add(name)
        # Without the brackets, so that it does not matter where a batch ends.
        self._columns[name].update(json.dumps(values, ensure_ascii=False, separators=(",", ":"))[1:-1].encode() + b",")

    def _values(self, role: str, column: pyarrow.Array) -> list[Any]:
        values = column.to_pylist()
        kind = self.roles[role].kind if role in self.roles else None
        if role == "document":  # where a text begins; its name is often that of its file
            before = [self._document, *values]
            self._document = before[-1]
            return [None if own == last else 1 for own, last in zip(values, before[:-1], strict=True)]
        if kind == "json":
            return list(map(_json, values))
        if kind == "group":
            return list(map(_cell, values))
        return [None if value == "" else value for value in values]


def rows_sha256(rows: datasets.Dataset, roles: Mapping[str, Column]) -> str:
    """The digest of the rows of a split."""
    digest = RowsDigest(roles)
    digest.add(rows.data.table)
    return digest.hexdigest()


def _cells(column: pyarrow.Array) -> list[Any]:
    """Cells of a table in normal form; values that repeat are looked at once."""
    if pyarrow.types.is_nested(column.type):
        return list(map(_cell, column.to_pylist()))
    coded = column.dictionary_encode()
    values = [*map(_cell, coded.dictionary.to_pylist()), None]
    return [values[-1 if code is None else code] for code in coded.indices.to_pylist()]


def _cell(cell: Any) -> Any:
    """A number by its value, None for what is missing, else the name of a category."""
    if is_missing(cell):
        return None
    if isinstance(cell, str) and NUMBER.fullmatch(text := cell.strip()):
        cell = float(text) if set(text) & set(".eE") else int(text)
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return int(cell)
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return cell
    name = category(cell)
    day = MIDNIGHT.fullmatch(name) if name else None
    return day[1] if day else name


def _json(value: str | None) -> Any:
    """A value of JSON, whatever its spaces and the order of its keys; empty ones are none."""
    found = None if not value else json.loads(value)
    return None if found in (None, "", [], {}) else json.dumps(found, ensure_ascii=False, sort_keys=True)
