"""Strict readers of CSV, TSV and JSON. Text stays text: `001`, `NA` and `null` are what they look like.

pandas, which reads for the `datasets` library, accepts short rows, makes nothing of `NA` and the number 1 of `001`.
"""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from llmft.data.encodings import lines_of, opened
from llmft.data.source import CHUNK, START, Mark
from llmft.data.table import MANY, Table, listed
from llmft.schema.problem import Problem, UserError


@dataclass(frozen=True)
class CsvFile:
    """A .csv or .tsv file, every value a string."""

    file: Path
    name: str
    """The file as row ids name it."""
    encoding: str
    delimiter: str
    quoting: int
    """`csv.QUOTE_MINIMAL`, or `csv.QUOTE_NONE` where quotes are letters."""
    header: tuple[str, ...] = ()
    body: Mark = START
    """Where the first row begins."""

    def reader(self, stream: TextIO, line: int) -> Any:
        """A csv reader of the rows from `line` on, where `stream` stands."""
        csv.field_size_limit(sys.maxsize)
        lines = lines_of(stream, self.name, line)
        return csv.reader(lines, delimiter=self.delimiter, quoting=self.quoting, strict=True)  # type: ignore[arg-type]

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is named by the line where it starts."""
        mark = first = start or self.body
        line = first.line
        rows: list[list[str]] = []
        ids: list[str] = []
        problems: list[Problem] = []
        with opened(self.file, self.name, self.encoding, first.position) as stream:
            reader = self.reader(stream, first.line)
            try:
                for row in reader:
                    if len(row) == len(self.header):
                        rows.append(row)
                        ids.append(f"{self.name}:{line}")
                    elif row:  # an empty line is no row
                        problems.append(misfit(f"{self.name}:{line}", len(row), len(self.header)))
                    line = first.line + reader.line_num
                    if len(rows) == CHUNK:
                        yield mark, self._table(rows, ids)
                        mark, rows, ids = Mark(stream.tell(), line), [], []
                    if len(problems) == MANY:
                        break
            except csv.Error as error:
                problems.append(unreadable(f"{self.name}:{line}", error))
        if rows:
            yield mark, self._table(rows, ids)
        if problems:
            raise UserError(listed(problems), "the data")

    def _table(self, rows: list[list[str]], ids: list[str]) -> Table:
        return Table({name: [row[i] for row in rows] for i, name in enumerate(self.header)}, ids)


def misfit(place: str, fields: int, wanted: int) -> Problem:
    """What is wrong with a row of so many fields under a header of `wanted`."""
    less = "fewer" if fields < wanted else "more"
    return Problem(
        place,
        f"{fields} fields, {less} than the {wanted} of the header",
        hint="Put a text with a separator in it into double quotes." if less == "more" else "",
    )


def separator(header: str) -> str:
    """The one of `,`, `;` and tab that the first line of a .csv has most of."""
    return max(",;\t", key=header.count)


def open_csv(file: Path, name: str, encoding: str, header: Sequence[str] = ()) -> CsvFile:
    """A .csv or .tsv file by its header.

    The separator is the one of `,`, `;` and tab that the first line has most of. What is separated by tabs is read
    with quotes if that is possible for the whole file, else without, as both kinds are about.

    Args:
        header: the names of the columns, for a file whose first line is a row already.

    Raises:
        UserError: for a header that names a column twice.
    """
    delimiter = "\t"
    if file.suffix.lower() not in (".tsv", ".tab"):
        with opened(file, name, encoding) as stream:
            delimiter = separator(stream.readline())
    quoted, plain = (
        CsvFile(file, name, encoding, delimiter, quoting, tuple(header))
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE)
    )
    if delimiter != "\t":
        return _with_header(quoted)
    # Two quotes that have nothing to do with each other can swallow the lines between them.
    return _with_header(quoted if (rows := _count(quoted)) >= 0 and rows >= _count(plain) else plain)


def _with_header(source: CsvFile) -> CsvFile:
    if source.header:
        return source
    with opened(source.file, source.name, source.encoding) as stream:
        reader = source.reader(stream, 1)
        try:
            header = tuple(cell.strip() for cell in next(reader, []))
        except csv.Error as error:
            raise UserError(unreadable(f"{source.name}:1", error), "the data") from error
        body = Mark(stream.tell(), 1 + reader.line_num)
    check_header(header, source.name)
    return replace(source, header=header, body=body)


def check_header(header: Sequence[str], name: str) -> None:
    """Raise UserError where two columns have one name."""
    if twice := sorted({cell for cell in header if header.count(cell) > 1}):
        what = f"two columns are called {', '.join(map(repr, twice))}"
        raise UserError(Problem(f"{name}:1", what), "the data")


def _count(source: CsvFile) -> int:
    """The number of rows, or -1 for a file that can't be read like this."""
    try:
        return sum(len(table) for _, table in _with_header(source).chunks())
    except UserError:
        return -1


def unreadable(place: str, error: csv.Error) -> Problem:
    """What is wrong with a row whose quotes go with no reading."""
    what = "a quote that opens here is never closed" if "unexpected end" in str(error) else str(error)
    return Problem(place, what, hint='Write a quote inside a quoted text twice: "".')


@dataclass(frozen=True)
class JsonLines:
    """A .jsonl file, one object a line."""

    file: Path
    name: str
    encoding: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A chunk has the keys that its own rows have."""
        mark = start or START
        rows: list[tuple[int, Any]] = []
        problems: list[Problem] = []
        with opened(self.file, self.name, self.encoding, mark.position) as stream:
            for number, line in enumerate(lines_of(stream, self.name, mark.line), mark.line):
                if not line.strip():
                    continue
                row = json_object(line, f"{self.name}:{number}")
                if isinstance(row, Problem):
                    problems.append(row)
                else:
                    rows.append((number, row))
                if len(rows) == CHUNK:
                    yield mark, _objects(rows, self.name)
                    mark, rows = Mark(stream.tell(), number + 1), []
                if len(problems) == MANY:
                    break
        if rows:
            yield mark, _objects(rows, self.name)
        if problems:
            raise UserError(listed(problems), "the data")


@dataclass(frozen=True)
class JsonList:
    """A .json file that holds one list of objects. It is one chunk, whatever its size."""

    file: Path
    name: str
    encoding: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is named by its number."""
        with opened(self.file, self.name, self.encoding) as stream:
            try:
                rows = list(enumerate(json.loads("".join(lines_of(stream, self.name, 1))), 1))
            except json.JSONDecodeError as error:
                raise UserError(
                    Problem(f"{self.name}:{error.lineno}", f"is no JSON: {error.msg}"), "the data"
                ) from error
        if problems := [no_object(f"{self.name}:{number}") for number, row in rows if not isinstance(row, dict)]:
            raise UserError(listed(problems), "the data")
        yield START, _objects(rows, self.name)


def open_json(file: Path, name: str, encoding: str) -> JsonLines | JsonList:
    """A file of JSON by its first letter."""
    with opened(file, name, encoding) as stream:
        first = next((line.lstrip() for line in lines_of(stream, name, 1) if line.strip()), "")
    return (JsonList if first.startswith("[") else JsonLines)(file, name, encoding)


def json_object(line: str, place: str) -> dict[str, Any] | Problem:
    """The object that a line holds, or what is wrong with the line."""
    try:
        row = json.loads(line.rstrip("\n"))
    except json.JSONDecodeError as error:
        return Problem(place, f"is no JSON: {error.msg} at column {error.colno}")
    except (RecursionError, ValueError) as error:  # lists in lists in lists, a number of 5,000 digits
        return Problem(place, f"is no JSON that can be read: {error}")
    return row if isinstance(row, dict) else no_object(place)


def no_object(place: str) -> Problem:
    """What is wrong with a value that is no table."""
    return Problem(place, "is no JSON object", hint='Write {"text": ..., "label": ...}.')


def _objects(rows: list[tuple[int, Any]], name: str) -> Table:
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    return Table({key: [row.get(key) for _, row in rows] for key in keys}, [f"{name}:{number}" for number, _ in rows])
