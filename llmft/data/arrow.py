"""Arrow files: written once, then mapped into memory, where processes share their pages."""

from pathlib import Path

import pyarrow


def write_table(table: pyarrow.Table, file: Path) -> None:
    """Write a table into a file of its own."""
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_table(file: Path) -> pyarrow.Table:
    """Map a table into memory; pages are read from the disk as they are needed."""
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(file))).read_all()
