"""SQLite databases, read as the csv of a query would be: every value a string. Nothing is ever written to them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llmft.data.source import CHUNK, Mark
from llmft.data.table import MANY, Table, listed
from llmft.data.text_files import check_header
from llmft.schema.problem import Problem, UserError

BYTES = "Leave the column out: write dataset.query='select ...'."
READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
"""What a query may do: not attach files, set pragmas or write."""


@dataclass(frozen=True)
class SqliteFile:
    """The rows of a query, or of the only table."""

    file: Path
    name: str
    """The file as row ids name it."""
    query: str | None = None

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is named by its number in the result; rows before `start` are read over."""
        first = start.line if start else 1
        problems: list[Problem] = []
        with closing(self._open()) as database:
            try:
                cursor = database.execute(self.query or f"select * from {self._table(database)}")
                header = [column[0].strip() for column in cursor.description or ()]
                check_header(header, self.name)
                rows = islice(enumerate(cursor, 1), first - 1, None)
                while part := list(islice(rows, CHUNK)):
                    ids = [f"{self.name}:{number}" for number, _ in part]
                    for column, name in enumerate(header):
                        held = [number for number, row in part if isinstance(row[column], bytes)]
                        problems += [
                            Problem(f"{self.name}:{number}", f"{name} holds bytes", hint=BYTES) for number in held
                        ]
                    if not problems:
                        columns = {name: [_text(row[i]) for _, row in part] for i, name in enumerate(header)}
                        yield Mark(0, part[0][0]), Table(columns, ids)
                    if len(problems) >= MANY:
                        break
            except (sqlite3.Error, sqlite3.Warning) as error:
                place = "dataset.query" if self.query else self.name
                hint = "A query may only select." if "authoriz" in str(error) or "one statement" in str(error) else ""
                raise UserError(Problem(place, f"{self.name}: {error}", hint=hint), "the data") from error
            except ValueError as error:  # the query holds a NUL character
                raise UserError(Problem("dataset.query", str(error)), "the data") from error
        if problems:
            raise UserError(listed(problems), "the data")

    def _open(self) -> sqlite3.Connection:
        for ending in ("-wal", "-journal"):
            beside = self.file.with_name(self.file.name + ending)
            if beside.is_file() and beside.stat().st_size:
                what = f"has changes in {beside.name} that are not yet in it"
                hint = "Close the program that writes it, or run `pragma wal_checkpoint(truncate)` in it."
                raise UserError(Problem(self.name, what, hint=hint), "the data")
        # Immutable: no lock and no file beside it, so that a folder without write access will do.
        database = sqlite3.connect(f"file:{quote(str(self.file.absolute()))}?mode=ro&immutable=1", uri=True)
        database.execute("pragma trusted_schema=off")
        database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY)
        return database

    def _table(self, database: sqlite3.Connection) -> str:
        """The name of the only table, quoted.

        Raises:
            UserError: where there are several, or none.
        """
        kinds = "select name from sqlite_master where type = 'table' and name not like 'sqlite\\_%' escape '\\'"
        names = [name for (name,) in database.execute(kinds)]
        if len(names) != 1:
            what = f"has {len(names)} tables: {', '.join(names)}" if names else "has no table"
            hint = f"Write dataset.query='select * from {names[0]}'." if names else ""
            raise UserError(Problem(self.name, what, hint=hint), "the data")
        return '"' + names[0].replace('"', '""') + '"'


def _text(value: Any) -> str:
    """A value as csv has it; nothing for NULL."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)
