"""Reads rows for prediction one by one, as they arrive: a row that cannot be read has an error, and the next follows.

Training refuses a file with such a row (data/csv_files.py). An input here may never end, and cannot be checked first.
"""

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from llmft.data.annotated import SquadFile, Word, sentences, word_column, word_lines
from llmft.data.binary_tables import ExcelFile
from llmft.data.csv_files import (
    SEEN,
    CsvReader,
    bad_quotes,
    check_header,
    is_spaced,
    open_csv,
    separator,
    wrong_field_count,
)
from llmft.data.encodings import BROKEN, Marking, decoding_fault, open_bytes, strip_line_end
from llmft.data.files import HEAD, by_pattern, inner_ending, kind_of, kind_of_head, mismatch
from llmft.data.formats import FORMATS
from llmft.data.images import SUFFIXES
from llmft.data.json_files import JsonList, json_object, open_json, row_of
from llmft.data.source import Source, Table
from llmft.predictions.inputs import Row
from llmft.schema.problem import Problem, UserError

WHOLE = ("parquet", "excel", "sqlite", "arrow")  # read by the readers of training, not as a stream of lines
ENDINGS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".txt": "txt"} | {
    ending: kind for kind in ("json", *WHOLE, "conll") for ending in FORMATS[kind].suffixes
}
LONGEST = 1000  # maximum lines of a quoted row: a quote that is never closed would swallow the rest of the input
JSON = re.compile(r'\s*(\{\s*("|\}|$)|\[\s*(\{|$))')  # does not match `[sic] ...`, which is text


@dataclass(frozen=True)
class Rows:
    """The rows of an input."""

    kind: str
    columns: list[str] | None
    """The columns of every row, if they are known before the first row."""
    rows: Iterable[Row]


def open_file(
    file: Path,
    kind: str | None,
    encoding: str,
    text: str | None,
    delimiter: str | None = None,
    sheet: str | None = None,
    query: str | None = None,
    field: str | None = None,
) -> Rows:
    """The rows of a file.

    Args:
        kind: csv, tsv, json, conll, txt, squad, or one of WHOLE; None to decide by first bytes, ending, and first line.
        text: the column for a line of a .txt; None for a task that reads no text.
        delimiter: the separator of a CSV; None to guess it from the first lines.
        sheet: `dataset.sheet`, of a workbook.
        query: `dataset.query`, of a database.
        field: `dataset.field`, the key of the rows in a JSON object.

    Raises:
        UserError: for a file that cannot be opened, a header that cannot be read, or a damaged file.
    """
    with _opening(file):
        seen = kind_of(file)
    rows = seen is not None and seen.format in (*ENDINGS.values(), "squad")  # not images
    if seen and (not rows or kind not in (None, seen.format)):
        hint = f"Write predict.input_format={seen.format}." if rows else seen.hint
        raise UserError(Problem(file.name, f"is {seen.what}", hint=hint), "the data")
    kind = kind or (seen.format if seen else ENDINGS.get(inner_ending(file)))
    if kind in WHOLE:
        if problem := mismatch(file, file.name, kind):
            raise UserError(problem._replace(hint="Write predict.input_format=csv, json or txt."), "the data")
        if kind == "excel":
            return _excel(ExcelFile(file, file.name, sheet))
        more = [query] if kind == "sqlite" else []
        return _whole(kind, FORMATS[kind].open(file, file.name, encoding, *more))
    if kind == "json" and isinstance(source := open_json(file, file.name, encoding, field), JsonList):
        return replace(_whole(kind, source), columns=None)
    if kind == "squad":
        table, missing, _ = SquadFile(file, file.name, encoding).read()
        errors = (Row(problem.key, {}, problem.what) for problem in missing)
        return Rows(kind, list(table.columns), chain(map(Row, table.ids, _records(table)), errors))
    with _opening(file):
        return open_stream(open_bytes(file), file.name, kind, encoding, text, delimiter, file)


@contextmanager
def _opening(file: Path) -> Iterator[None]:
    """Inside the context, a file that cannot be opened is the user's mistake."""
    try:
        yield
    except OSError as error:
        what = f"must be a file that can be read, got {file} ({error.strerror})"
        raise UserError(Problem("predict.input", what), "the data") from error


def open_images(source: str, column: str) -> Rows | None:
    """A row for each image of `source`: an image file, a folder with images at any depth, or a pattern; else None."""
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES)
        found = {file.relative_to(path).as_posix(): file for file in files}
    elif path.is_file():
        found = {path.name: path} if (kind := kind_of(path)) and kind.format == "images" else {}
    else:
        found = {str(file): file for file in by_pattern(path)}
    if not found and not path.is_dir():
        return None
    if not found:
        what = f"no {', '.join(SUFFIXES[:3])}, ... file in {path}"
        raise UserError(Problem("predict.input", what, hint="Name a folder with images."), "the data")
    cells = ((name, {"path": str(file.absolute()), "bytes": None}) for name, file in found.items())
    return Rows("images", [column], (Row(name, {column: cell}) for name, cell in cells))


def _whole(kind: str, source: Source) -> Rows:
    tables = (table for _, table in source.chunks())
    first = next(tables, Table())
    found = (map(Row, table.ids, _records(table)) for table in chain([first], tables))
    return Rows(kind, list(first.columns), chain.from_iterable(found))


def _excel(file: ExcelFile) -> Rows:
    table, problems = file.read()
    if whole := [problem for problem in problems if ":" not in problem.key.removeprefix(file.name)]:
        raise UserError(whole, "the data")
    rows = {id: Row(id, row) for id, row in zip(table.ids, _records(table), strict=True)}
    rows |= {problem.key: Row(problem.key, {}, str(problem)) for problem in problems}
    return Rows("excel", list(table.columns), sorted(rows.values(), key=lambda row: int(row.id.rpartition(":")[2])))


def _records(table: Any) -> Iterator[dict[str, Any]]:
    return (dict(zip(table.columns, values, strict=True)) for values in zip(*table.columns.values(), strict=True))


def open_stream(
    stream: BinaryIO,
    name: str,
    kind: str | None,
    encoding: str,
    text: str | None,
    delimiter: str | None = None,
    file: Path | None = None,
) -> Rows:
    """The rows of a stream of bytes, as they arrive.

    Args:
        name: its name in row ids.
        kind: csv, tsv, json, conll, or txt; None to decide by the first line.
        text: the column for a line of text. If the first line has it as a field, it is the header of a CSV.
        delimiter: see `open_file`.
        file: the file of the bytes, if they can be read again; for a pipe only the first line is looked at.

    Raises:
        UserError: for a header that cannot be read.
    """
    if isinstance(stream, io.BufferedReader) and not file and (seen := kind_of_head(stream.peek(HEAD)[:HEAD])):
        hint = "Name the file: predict.input=FILE."
        raise UserError(Problem(name, f"is {seen.what}, and a pipe carries text", hint=hint), "the data")
    lines = _lines(stream, name, encoding)
    head = list(islice(lines, SEEN if file else 1))
    first = head[0] if head else ""
    lines = chain(head if first else [], lines)
    if kind == "tsv":
        delimiter = "\t"
    elif delimiter is None or delimiter not in first:
        delimiter = separator(head)
    kind = kind or _kind(first, text, delimiter)
    if kind == "json":
        return Rows(kind, None, _json(lines, name, encoding))
    if kind == "conll":
        return Rows(kind, ["tokens"], _conll(lines, name, encoding))
    if kind == "txt":
        if text is None:
            what = "this run reads tables, and txt has no columns"
            raise UserError(Problem("predict.input_format", what), "the data")
        return Rows(kind, [text], _texts(lines, name, encoding, text))
    quoting = csv.QUOTE_MINIMAL
    if file and delimiter == "\t":  # whether quotes are ordinary characters takes the whole file to decide
        quoting = open_csv(file, name, encoding, delimiter=delimiter).quoting
    return _csv(lines, name, encoding, (delimiter, quoting, is_spaced(first, delimiter)))


def _kind(first: str, text: str | None, delimiter: str) -> str:
    if JSON.match(first):
        return "json"
    cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
    return "csv" if text is None or text in cells else "txt"


def _lines(stream: BinaryIO, name: str, encoding: str) -> Iterator[str]:
    """The lines, with marks in place of bytes that are not in `encoding`."""
    codecs.register_error("llmft.mark", Marking())
    try:
        for number, line in enumerate(io.TextIOWrapper(stream, encoding, errors="llmft.mark", newline="\n")):
            yield line.removeprefix("\ufeff") if number == 0 else line
    except BROKEN as error:
        raise UserError(Problem(name, f"is compressed, and not complete: {error}"), "the data") from error


def _fault(line: str, encoding: str) -> str:
    """What is wrong with the characters of a line; empty if nothing is."""
    return decoding_fault(line, encoding) or ("holds a NUL character" if "\0" in line else "")


def _texts(lines: Iterable[str], name: str, encoding: str, text: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        fault = _fault(line, encoding)
        yield Row(f"{name}:{number}", {} if fault else {text: strip_line_end(line)}, fault)


def _conll(lines: Iterable[str], name: str, encoding: str) -> Iterator[Row]:
    """The words of each sentence, with or without tags. Their column is found in the first sentence of two words."""
    found = sentences(enumerate(lines, 1))
    first: list[list[Word]] = []
    for words in found:
        first.append(words)
        if len(words) > 1:
            break
    column = word_column(first)
    for words in chain(first, found):
        tokens = [word.columns[min(column, len(word.columns) - 1)] for word in word_lines(words, column)]
        fault = _fault("".join(tokens), encoding)
        yield Row(f"{name}:{words[0].line}", {} if fault else {"tokens": tokens}, fault)


def _json(lines: Iterable[str], name: str, encoding: str) -> Iterator[Row]:
    """One object per line; or, if the first character opens a list, one list, which is read as a whole."""
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    for count, (number, line) in enumerate(numbered):
        if count == 0 and line.lstrip().startswith("[") and isinstance(json_object(line, name), Problem):
            yield from _json_list(line + "".join(rest for _, rest in numbered), name, encoding)
            return
        place = f"{name}:{number}"
        if fault := _fault(line, encoding):
            yield Row(place, {}, fault)
        else:
            yield _object(json_object(line, place), place)


def _json_list(text: str, name: str, encoding: str) -> Iterator[Row]:
    whole = json_object(f'{{"rows": {text}}}', name)
    fault = _fault(text, encoding) or (str(whole) if isinstance(whole, Problem) else "")
    if fault or isinstance(whole, Problem):
        raise UserError(Problem(name, fault), "the data")
    for number, row in enumerate(whole["rows"], 1):
        place = f"{name}:{number}"
        yield _object(row_of(row, place), place)


def _object(row: dict[str, Any] | Problem, place: str) -> Row:
    if isinstance(row, Problem):
        return Row(place, {}, str(row))
    return Row(place, row, "" if is_text(row) else "holds half of a surrogate pair, which is not a letter")


def is_text(value: Any) -> bool:
    """Whether all texts in a JSON value can be encoded as UTF-8, unlike `"\\ud800"`."""
    if isinstance(value, dict):
        return all(is_text(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return all(map(is_text, value))
    return not isinstance(value, str) or value.isascii() or not re.search("[\ud800-\udfff]", value)


@dataclass
class Lines:
    """Counted lines that can be given back, to be read again."""

    source: Iterator[str]
    number: int = 0
    held: list[str] = field(default_factory=list)
    """The lines of the current row."""
    back: deque[str] = field(default_factory=deque)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.held) == LONGEST:
            raise StopIteration
        line = self.back.popleft() if self.back else next(self.source)
        self.number += 1
        self.held.append(line)
        return line

    def give_back(self) -> None:
        """Give back all lines of the current row except its first: only that line is bad, as far as is known."""
        self.back.extendleft(reversed(self.held[1:]))
        self.number -= len(self.held) - 1


def _csv(lines: Iterable[str], name: str, encoding: str, dialect: tuple[str, int, bool]) -> Rows:
    """The rows of a CSV with a header; `dialect` has the arguments of `CsvReader`: delimiter, quoting, spaced."""
    source = Lines(iter(lines))
    reader = CsvReader(source, *dialect)
    try:
        header = [cell.strip() for cell in next(reader, [])]
    except csv.Error as error:
        raise UserError(bad_quotes(f"{name}:1", error), "the data") from error
    if fault := _fault("".join(source.held), encoding):
        hint = "" if "dataset.encoding" in fault else "Set dataset.encoding to the input's own."
        raise UserError(Problem(f"{name}:1", fault, hint=hint), "the data")
    check_header(header, name)

    def rows() -> Iterator[Row]:
        while True:
            source.held.clear()
            place = f"{name}:{source.number + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                source.give_back()
                yield Row(place, {}, str(bad_quotes(place, error)))
                continue
            if fault := _fault("".join(source.held), encoding):
                yield Row(place, {}, fault)
            elif len(cells) == len(header):
                yield Row(place, dict(zip(header, cells, strict=True)))
            elif cells:  # an empty line is not a row
                yield Row(place, {}, str(wrong_field_count(place, cells, len(header))))

    return Rows("csv", header or None, rows())
