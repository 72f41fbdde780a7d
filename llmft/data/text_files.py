"""Strict readers of CSV, TSV and JSON. Text stays text: `001`, `NA` and `null` are what they look like.

pandas, which reads for the `datasets` library, accepts short rows, makes nothing of `NA` and the number 1 of `001`.
"""

import codecs
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from llmft.data.table import Table, listed
from llmft.schema.problem import Problem, UserError

BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF32_LE: "utf-32"}


def read_csv(file: Path, name: str, encoding: str) -> Table:
    """The rows of a .csv or .tsv file, every value a string.

    The separator of a .csv is the one of `,`, `;` and tab that its header has most of. A .tsv is read with quotes if
    that is possible for the whole file, else without, as both kinds are about.

    Raises:
        UserError: with the line of each row that is short, long or not closed.
    """
    text = decode(file, name, encoding)
    header = text.split("\n", 1)[0]
    if file.suffix.lower() in (".tsv", ".tab"):
        table, problems = _parse(text, name, "\t", csv.QUOTE_MINIMAL)
        plain, plain_problems = _parse(text, name, "\t", csv.QUOTE_NONE)
        # Two quotes that have nothing to do with each other can swallow the lines between them.
        if problems or (not plain_problems and len(plain) > len(table)):
            table, problems = plain, plain_problems
    else:
        table, problems = _parse(text, name, max(",;\t", key=header.count), csv.QUOTE_MINIMAL)
    if problems:
        raise UserError(listed(problems), "the data")
    return table


def _parse(text: str, name: str, delimiter: str, quoting: Any) -> tuple[Table, list[Problem]]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, quoting=quoting, strict=True)
    problems: list[Problem] = []
    rows: list[list[str]] = []
    places: list[int] = []
    header: list[str] = []
    line = 1
    try:
        header = [cell.strip() for cell in next(reader, [])]
        twice = sorted({cell for cell in header if header.count(cell) > 1})
        if twice:
            problems.append(Problem(f"{name}:1", f"two columns are called {', '.join(map(repr, twice))}"))
        line = reader.line_num + 1
        for row in reader:
            if len(row) == len(header):
                rows.append(row)
                places.append(line)
            elif row:  # an empty line is no row
                less = "fewer" if len(row) < len(header) else "more"
                problems.append(
                    Problem(
                        f"{name}:{line}",
                        f"{len(row)} fields, {less} than the {len(header)} of the header",
                        hint="Put a text with a separator in it into double quotes." if less == "more" else "",
                    )
                )
            line = reader.line_num + 1
    except csv.Error as error:
        what = "a quote that opens here is never closed" if "unexpected end" in str(error) else str(error)
        problems.append(Problem(f"{name}:{line}", what, hint='Write a quote inside a quoted text twice: "".'))
    columns = {column: [row[i] for row in rows] for i, column in enumerate(header)} if not problems else {}
    return Table(columns, [f"{name}:{line}" for line in places] if columns else []), problems


def read_json(file: Path, name: str, encoding: str) -> Table:
    """The rows of a .jsonl file, one object a line, or of a .json file, a list of objects.

    Raises:
        UserError: with the line of each row that is no JSON object.
    """
    text = decode(file, name, encoding)
    problems: list[Problem] = []
    rows: list[tuple[int, Any]] = []
    if text.lstrip().startswith("["):
        try:
            rows = list(enumerate(json.loads(text), 1))
        except json.JSONDecodeError as error:
            problems.append(Problem(f"{name}:{error.lineno}", f"is no JSON: {error.msg}"))
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    rows.append((number, json.loads(line)))
                except json.JSONDecodeError as error:
                    problems.append(Problem(f"{name}:{number}", f"is no JSON: {error.msg} at column {error.colno}"))
    for number, row in rows:
        if not isinstance(row, dict):
            problems.append(Problem(f"{name}:{number}", "is no JSON object", hint='Write {"text": ..., "label": ...}.'))
    if problems:
        raise UserError(listed(problems), "the data")
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    return Table({key: [row.get(key) for _, row in rows] for key in keys}, [f"{name}:{number}" for number, _ in rows])


def decode(file: Path, name: str, encoding: str) -> str:
    """The text of a file, without a byte order mark and with `\\n` at line ends.

    Raises:
        UserError: naming the line that is not in `encoding`, and the encoding that it may be in.
    """
    data = file.read_bytes()
    if data.startswith(b"PAR1"):
        raise UserError(Problem(name, "is a parquet file", hint="Write dataset=parquet."), "the data")
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, UnicodeError) as error:
        start = getattr(error, "start", 0)
        line = data[:start].count(b"\n") + 1
        guess = _guess(data)
        hint = (
            f"It looks like {guess}: set dataset.encoding={guess}."
            if guess
            else "Set dataset.encoding to the file's own."
        )
        raise UserError(
            Problem(f"{name}:{line}", f"is not {encoding.removesuffix('-sig')}", hint=hint), "the data"
        ) from error
    if "\0" in text:
        guess = _guess(data) or "utf-16"
        raise UserError(
            Problem(f"{name}:1", "holds NUL characters", hint=f"Is it {guess}? Set dataset.encoding={guess}."),
            "the data",
        )
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _guess(data: bytes) -> str:
    """The encoding that the bytes may be in, or nothing."""
    for bom, name in BOMS.items():
        if data.startswith(bom):
            return name
    for name in ("gb18030", "cp1252"):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        letters = [char for char in text if ord(char) > 127]
        common = sum("一" <= char <= "鿿" or char in "，。！？、：；“”‘’（）《》" for char in letters)
        if name == "cp1252" or common > 0.7 * len(letters):
            return name
    return ""
