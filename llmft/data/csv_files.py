"""Strict readers of CSV and TSV. Every cell stays text: `001`, `NA`, and `null` are not changed.

pandas, which the library `datasets` uses, accepts short rows, and turns `NA` into a missing value and `001` into 1.
"""

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from llmft.data.encodings import inner_name, lines_of, open_text
from llmft.data.source import CHUNK, MANY, START, Mark, Table, listed
from llmft.schema.problem import Problem, UserError, plural

SEPARATORS = ",;\t"
SEEN = 1000  # lines from which a separator is guessed
WITHIN = re.compile(r"\r(?!\r*\n?\Z)")  # a `\r` that is not part of the line end
HELD = "\udc0d"  # a lone surrogate, which no decoder returns, in place of such a `\r` while csv.reader splits the line


class CsvReader:
    """Python's csv.reader for lines that end at `\\n`; a `\\r` outside of quotes is a character, and ends no line."""

    def __init__(self, lines: Iterable[str], delimiter: str, quoting: int, spaced: bool, strict: bool = True) -> None:
        """Arguments as for `CsvFile`; unless `strict`, quotes may be anywhere."""
        csv.field_size_limit(sys.maxsize)
        # A map can continue after a StopIteration, which predictions/rows.py needs; a generator cannot.
        held = map(_held, lines)
        options: dict[str, Any] = {"quoting": quoting, "skipinitialspace": spaced, "strict": strict}
        self.rows = csv.reader(held, delimiter=delimiter, **options)

    @property
    def line_num(self) -> int:
        """The number of lines read."""
        return self.rows.line_num

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        return [cell.replace(HELD, "\r") if HELD in cell else cell for cell in next(self.rows)]


def _held(line: str) -> str:
    return WITHIN.sub(HELD, line) if "\r" in line else line


@dataclass(frozen=True)
class CsvFile:
    """A .csv or .tsv file, every value a string."""

    file: Path
    name: str
    """The file as row ids name it."""
    encoding: str
    delimiter: str
    quoting: int
    """`csv.QUOTE_MINIMAL`, or `csv.QUOTE_NONE` if quotes are ordinary characters."""
    spaced: bool = False
    """Whether the space after a separator belongs to it, as in `35, "Ulm, old town", yes`."""
    header: tuple[str, ...] = ()
    body: Mark = START
    """Where the first row begins, after the header."""

    def reader(self, stream: TextIO, line: int) -> CsvReader:
        """A reader of the rows from the position of `stream`, which is `line`."""
        return CsvReader(lines_of(stream, self.name, line), self.delimiter, self.quoting, self.spaced)

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. The id of a row has the line where it starts."""
        mark = first = start or self.body
        line = first.line
        rows: list[list[str]] = []
        ids: list[str] = []
        problems: list[Problem] = []
        with open_text(self.file, self.name, self.encoding, first.position) as stream:
            reader = self.reader(stream, first.line)
            try:
                for row in reader:
                    if len(row) == len(self.header):
                        rows.append(row)
                        ids.append(f"{self.name}:{line}")
                    elif row:  # an empty line is not a row
                        problems.append(wrong_field_count(f"{self.name}:{line}", row, len(self.header)))
                    line = first.line + reader.line_num
                    if len(rows) == CHUNK:
                        yield mark, self._table(rows, ids)
                        mark, rows, ids = Mark(stream.tell(), line), [], []
                    if len(problems) == MANY:
                        break
            except csv.Error as error:
                problems.append(bad_quotes(f"{self.name}:{line}", error))
        if rows:
            yield mark, self._table(rows, ids)
        if problems:
            raise UserError(listed(problems), "the data")

    def _table(self, rows: list[list[str]], ids: list[str]) -> Table:
        return Table({name: [row[i] for row in rows] for i, name in enumerate(self.header)}, ids)


def wrong_field_count(place: str, row: list[str], wanted: int) -> Problem:
    """The problem of a row with another number of fields than the header, which has `wanted`."""
    less, hint = "fewer" if len(row) < wanted else "more", ""
    if less == "more" and any("\r" in cell for cell in row):
        hint = r"It holds \r alone; lines end at \n or \r\n."
    elif any(re.match(r'\s+"', cell) for cell in row):
        hint = "A quote opens a text only directly after the separator: remove the space before it."
    elif less == "more":
        hint = "Put a text with a separator in it into double quotes, or write dataset.separator=."
    elif len(row) == 1:
        hint = "If the separator is another one, write dataset.separator=."
    return Problem(place, f"{plural(len(row), 'fields')}, {less} than the {wanted} of the header", hint=hint)


def separator(lines: Sequence[str], fields: int = 0) -> str:
    """The one of `,`, `;`, and tab with which most rows have as many fields as the first one, and more than one.

    Args:
        lines: the first lines of a file.
        fields: the number of fields, if it is known.
    """
    kinds = [(one, csv.QUOTE_MINIMAL) for one in SEPARATORS] + [("\t", csv.QUOTE_NONE)]
    found = {}
    for delimiter, quoting in kinds:
        counts = [len(row) for row in CsvReader(lines, delimiter, quoting, spaced=False, strict=False) if row]
        wanted = fields or (counts[0] if counts else 0)
        share = counts.count(wanted) / len(counts) if counts and (wanted > 1 or fields) else 0
        # If several fit, as they do for a single line, the one that is most frequent in the first line.
        found[delimiter, quoting] = (share, lines[0].count(delimiter) if lines else 0)
    return max(kinds, key=found.__getitem__)[0]


def is_spaced(first: str, delimiter: str) -> bool:
    """Whether every separator of a line is followed by a space, which then belongs to it."""
    _, *others = first.split(delimiter)
    return delimiter != "\t" and bool(others) and all(other.startswith(" ") for other in others)


def open_csv(file: Path, name: str, encoding: str, header: Sequence[str] = (), delimiter: str | None = None) -> CsvFile:
    """A .csv or .tsv file; its separator is guessed from its first lines.

    Tab-separated files exist with quoting and without: quoting is used if the whole file can be read with it.

    Args:
        header: the names of the columns, for a file without a header.
        delimiter: the separator; None to guess it, or a tab for names that end in .tsv or .tab.

    Raises:
        UserError: for a header with two columns of one name.
    """
    with open_text(file, name, encoding) as stream:
        lines = list(islice(lines_of(stream, name, 1), SEEN))
    if delimiter is None:
        tabs = inner_name(file).lower().endswith((".tsv", ".tab"))
        delimiter = "\t" if tabs else separator(lines, len(header))
    spaced = bool(lines) and is_spaced(lines[0], delimiter)
    quoted, plain = (
        CsvFile(file, name, encoding, delimiter, quoting, spaced, tuple(header))
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE)
    )
    if delimiter != "\t":
        return _with_header(quoted)
    # Two unrelated quotes can swallow the lines between them, so quoting also must not give fewer rows.
    return _with_header(quoted if (rows := _count(quoted)) >= 0 and rows >= _count(plain) else plain)


def _with_header(source: CsvFile) -> CsvFile:
    if source.header:
        return source
    with open_text(source.file, source.name, source.encoding) as stream:
        reader = source.reader(stream, 1)
        try:
            header = tuple(cell.strip() for cell in next(reader, []))
        except csv.Error as error:
            raise UserError(bad_quotes(f"{source.name}:1", error), "the data") from error
        body = Mark(stream.tell(), 1 + reader.line_num)
    check_header(header, source.name)
    return replace(source, header=header, body=body)


def check_header(header: Sequence[str], name: str) -> None:
    """Raise UserError if two columns have the same name."""
    if twice := sorted({cell for cell in header if header.count(cell) > 1}):
        what = f"two columns are called {', '.join(map(repr, twice))}"
        raise UserError(Problem(f"{name}:1", what), "the data")


def _count(source: CsvFile) -> int:
    """The number of rows; -1 if the file cannot be read like this."""
    try:
        return sum(len(table) for _, table in _with_header(source).chunks())
    except UserError:
        return -1


def bad_quotes(place: str, error: csv.Error) -> Problem:
    """The problem of a row whose quotes csv.reader refuses."""
    what = "a quote that opens here is never closed" if "unexpected end" in str(error) else str(error)
    return Problem(place, what, hint='Write a quote inside a quoted text twice: "".')
