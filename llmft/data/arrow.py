"""Rows as Arrow tables: typed columns, memory-mapped files, and a digest of the values."""

import json
import re
import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from llmft.data.cell_values import category, is_missing
from llmft.data.images import content_digest
from llmft.data.source import Table
from llmft.schema.column import Column
from llmft.schema.problem import Problem, UserError

UNFIT = (pyarrow.ArrowException, UnicodeError, OverflowError)
BATCH = 10_000  # rows converted to Python objects at once
NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)[ T]00:00(:00(\.0+)?)?")  # a date, as spreadsheets and pandas write one


def write_table(table: pyarrow.Table, file: Path) -> None:
    """Write a table to an Arrow file."""
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


class TableWriter:
    """Writes an Arrow file part by part, for `read_table`."""

    def __init__(self, file: Path, schema: pyarrow.Schema) -> None:
        self.sink = pyarrow.OSFile(str(file), "wb")
        self.writer = pyarrow.ipc.new_file(self.sink, schema)

    def write(self, table: pyarrow.Table) -> None:
        """Append rows."""
        self.writer.write_table(table)

    def close(self) -> None:
        """Write the footer; without it the file cannot be read."""
        self.writer.close()
        self.sink.close()


def read_table(file: Path) -> pyarrow.Table:
    """Memory-map a table: pages are read from the disk when needed, and shared between processes."""
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(file))).read_all()


def read_dataset(file: Path) -> datasets.Dataset:
    """A file of `read_table` as a Dataset, without reading it."""
    # Fingerprinted by path: `datasets` would hash the content, and read all of a corpus for it.
    return datasets.Dataset(read_table(file), fingerprint=sha256(str(file.resolve()).encode()).hexdigest()[:16])


def to_arrow(table: Table, schema: pyarrow.Schema | None = None) -> pyarrow.Table:
    """The rows as an Arrow table, with their ids in the column `id`.

    Args:
        schema: the types of all columns, if `table` is a chunk of a split; None to infer them from the values.

    Raises:
        UserError: naming the first row whose type differs from those before it.
    """
    columns = {}
    for name, values in {"id": table.ids, **table.columns}.items():
        try:
            columns[name] = pyarrow.array(values, type=schema.field(name).type if schema else None)
        except UNFIT as error:
            raise UserError(_unfit(table, name, values, error), "the data") from error
    return pyarrow.table(columns)


def to_dataset(table: Table, schema: pyarrow.Schema | None = None) -> datasets.Dataset:
    """The rows as a Dataset."""
    # With any fingerprint: nothing is cached by it, and `datasets` would pickle and hash the table for 8 ms.
    return datasets.Dataset(to_arrow(table, schema), fingerprint=secrets.token_hex(8))


def _unfit(table: Table, name: str, values: list[Any], error: Exception) -> Problem:
    """The first row whose type differs from those before it, such as a list among numbers, or half a surrogate pair.

    By bisection, since Arrow's own message names no row: 20 tries for a million rows.
    """
    low, high = 0, len(values)  # values[:low] convert, values[:high] do not
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pyarrow.array(values[:middle])
            low = middle
        except UNFIT:
            high = middle
    if isinstance(error, UnicodeEncodeError):
        what = f"{name} contains {error.object[error.start]!a}, half of a surrogate pair, which is not a character"
        return Problem(table.ids[low], what, hint="Write the whole character, or remove it.")
    return Problem(table.ids[low], f"{name} does not fit the rows before it: {str(error).splitlines()[0]}")


class RowsDigest:
    """The sha256 of rows, added part by part in order, independent of how the parts are cut.

    It covers roles and normalized values, not ids and not names and formats of files: a workbook has 3.0 where a CSV
    has `3`, nothing where that has `NA`, and midnight where that has a date, and all of these are equal. `001` differs
    from `1`, since it is a text. A role without any value counts as missing.
    """

    def __init__(self, roles: Mapping[str, Column]) -> None:
        """Start with no rows. `roles` tell which columns are JSON, groups, or table cells."""
        self.roles = roles
        self.rows = 0
        self._columns: dict[str, Any] = {}
        self._filled: set[str] = set()
        self._document: Any = None

    def add(self, table: pyarrow.Table) -> None:
        """Add rows with a column for each role; `id` is ignored."""
        for batch in table.to_batches(max_chunksize=BATCH):
            for role in batch.schema.names:
                if role == "id":
                    continue
                column = batch.column(role)
                if role in self.roles and self.roles[role].kind == "image":
                    self._update(role, [cell and content_digest(cell) for cell in column.to_pylist()])
                elif pyarrow.types.is_struct(column.type):
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
        # Without the brackets of the list, so that it does not matter where a batch ends.
        self._columns[name].update(json.dumps(values, ensure_ascii=False, separators=(",", ":"))[1:-1].encode() + b",")

    def _values(self, role: str, column: pyarrow.Array) -> list[Any]:
        values = column.to_pylist()
        kind = self.roles[role].kind if role in self.roles else None
        # Of documents only where each one begins: their names contain the name of the file.
        if role == "document":
            before = [self._document, *values]
            self._document = before[-1]
            return [None if own == last else 1 for own, last in zip(values, before[:-1], strict=True)]
        if kind == "json":
            return list(map(_json, values))
        if kind == "group":
            return list(map(_cell, values))
        return [None if value == "" else value for value in values]


def rows_sha256(rows: datasets.Dataset, roles: Mapping[str, Column]) -> str:
    """The `RowsDigest` of a split."""
    digest = RowsDigest(roles)
    digest.add(rows.data.table)
    return digest.hexdigest()


def _cells(column: pyarrow.Array) -> list[Any]:
    """Normalized cells of a table. Each distinct value is normalized only once, by dictionary encoding."""
    if pyarrow.types.is_nested(column.type):
        return list(map(_cell, column.to_pylist()))
    coded = column.dictionary_encode()
    values = [*map(_cell, coded.dictionary.to_pylist()), None]
    return [values[-1 if code is None else code] for code in coded.indices.to_pylist()]


def _cell(cell: Any) -> Any:
    """A normalized cell: a number, None if missing, else the name of a category."""
    if is_missing(cell):
        return None
    if isinstance(cell, str) and NUMBER.fullmatch(text := cell.strip()):
        cell = float(text) if set(text) & set(".eE") else int(text)
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:  # beyond, floats skip integers
        return int(cell)
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return cell
    name = category(cell)
    day = MIDNIGHT.fullmatch(name) if name else None
    return day[1] if day else name


def _json(value: str | None) -> Any:
    """A normalized JSON value: sorted keys, no extra spaces; None if it is empty."""
    found = None if not value else json.loads(value)
    return None if found in (None, "", [], {}) else json.dumps(found, ensure_ascii=False, sort_keys=True)
