"""Arrow: from a Table to columns that are each of one type, and to files that are mapped into memory."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from llmft.data.table import Table
from llmft.schema.problem import Problem, UserError

UNFIT = (pyarrow.ArrowException, UnicodeError, OverflowError)


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
