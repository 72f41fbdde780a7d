"""Reads tables in binary files: Excel, SQLite, parquet, and the .arrow files of the library `datasets`.

From Excel and SQLite, every value is a string, as from CSV; parquet and Arrow keep the type of each column.
"""

import json
import re
import sqlite3
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llmft.data.csv_files import check_header
from llmft.data.encodings import bomb
from llmft.data.files import by_ending
from llmft.data.source import CHUNK, MANY, Mark, Table, listed
from llmft.schema.problem import Problem, UserError, missing_package

ZEROS = re.compile("0{2,}")  # a number format that shows 7 as 007
SHEET = "Write dataset.sheet=NAME."
_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")  # how the format writes characters that XML cannot hold

BYTES = "Leave the column out: write dataset.query='select ...'."
READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
"""What a query may do: read, but not attach files, set pragmas, or write."""


@dataclass(frozen=True)
class ExcelFile:
    """A sheet of an .xlsx file. The first row that is not empty is the header.

    By openpyxl, which exposes errors, number formats, and formulas. python-calamine is 17 times as fast, but gives an
    empty cell for `#REF!` and for a formula that was never computed.
    """

    file: Path
    name: str
    """The file as row ids name it."""
    sheet: str | None = None
    """The name of the sheet; None for the only visible one that is not empty."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Yields all rows whatever `start` is. The id of a row has its number as Excel shows it."""
        table, problems = self.read()
        for first in range(0, len(table), CHUNK):
            yield Mark(0, first + 1), table.take(range(first, min(first + CHUNK, len(table))))
        if problems:
            raise UserError(listed(problems), "the data")

    def read(self) -> tuple[Table, list[Problem]]:
        """The rows that can be read, and the problems of the others.

        Raises:
            UserError: for a file that is not a workbook, a missing sheet, or a header that cannot be read.
        """
        if missing := missing_package("dataset.format", "excel", "openpyxl", "files"):
            raise UserError(missing)
        formulas = self._sheet(values=False)
        cells = _cells(formulas)
        values = _cells(self._sheet(values=True)) if any(c.data_type == "f" for row in cells for c in row) else cells
        first = next((number for number, row in enumerate(values) if any(c.value is not None for c in row)), None)
        if first is None:
            return Table(), []
        header = [_cell_text(cell) for cell in values[first]]
        while header and not header[-1]:
            header.pop()
        check_header([name for name in header if name], f"{self.name}:{first + 1}".removesuffix(":1"))
        return self._rows(header, first, cells, values, [str(area) for area in formulas.merged_cells.ranges])

    def _rows(
        self, header: list[str], first: int, cells: list[Any], values: list[Any], merged: list[str]
    ) -> tuple[Table, list[Problem]]:
        table = Table({name: [] for name in header if name})
        problems = [
            Problem(
                self.name,
                f"must have no merged cells, got {area}, of which all but the first are empty",
                hint="Unmerge and fill them.",
            )
            for area in merged
        ]
        for number, (row, shown) in enumerate(zip(cells, values, strict=True), 1):
            if number <= first + 1 or all(cell.value is None for cell in row):
                continue  # an empty row is not a row
            found = dict.fromkeys(table.columns, "")
            faults = []
            for place, (cell, value) in enumerate(zip(row, shown, strict=True)):
                name = header[place] if place < len(header) else ""
                if fault := _fault(cell, value, name):
                    faults.append(Problem(f"{self.name}:{number}", f"{cell.coordinate} {fault[0]}", hint=fault[1]))
                elif name:
                    found[name] = _cell_text(value)
            problems += faults
            if not faults:
                for name, text in found.items():
                    table.columns[name].append(text)
                table.ids.append(f"{self.name}:{number}")
            if len(problems) >= MANY:
                break
        return table, problems

    def _sheet(self, values: bool) -> Any:
        """The sheet with formulas, or with their values from when the file was last saved."""
        import openpyxl

        try:
            with zipfile.ZipFile(self.file) as archive:
                members = archive.infolist()
            bomb(self.file, sum(one.file_size for one in members), sum(one.compress_size for one in members))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about styles and data validation, which are not read
                with self.file.open("rb") as opened:  # openpyxl refuses other endings of a path than .xlsx and .xlsm
                    book = openpyxl.load_workbook(opened, data_only=values)
        except (zipfile.BadZipFile, KeyError, ValueError, TypeError, SyntaxError, EOFError) as error:
            what = f"is not a complete Excel workbook: {str(error).splitlines()[0] if str(error) else error!r}"
            raise UserError(Problem(self.name, what), "the data") from error
        sheets = {sheet.title: sheet for sheet in book.worksheets}
        if self.sheet is not None:
            if self.sheet not in sheets:
                what = f"must have the sheet {self.sheet!r}, got {', '.join(sheets)}"
                raise UserError(Problem(self.name, what, hint=SHEET), "the data")
            return sheets[self.sheet]
        filled = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible" and _is_filled(sheet)]
        if len(filled) > 1:
            what = f"must have one sheet with rows, got {len(filled)}: {', '.join(sheet.title for sheet in filled)}"
            raise UserError(Problem(self.name, what, hint=SHEET), "the data")
        if not filled:
            what = f"must have rows in a sheet that is shown, got none in {', '.join(sheets)}"
            raise UserError(Problem(self.name, what, hint=SHEET), "the data")
        return filled[0]


def _cells(sheet: Any) -> list[Any]:
    return list(sheet.iter_rows(min_row=1, min_col=1))


def _is_filled(sheet: Any) -> bool:
    return any(value is not None for row in sheet.iter_rows(values_only=True) for value in row)


def _fault(cell: Any, value: Any, column: str) -> tuple[str, str] | None:
    """What is wrong with a cell, and what to do; `cell` has its formula, `value` the result."""
    if cell.value is None:
        return None
    if not column:
        return f"must be empty, since its column has no name, got {value.value}", "Name the column in the header."
    if value.data_type == "e" and value.value not in ("#N/A", None):  # "not available" marks a missing value
        return f"must hold a value, got the error {value.value}", "Correct the formula, or clear the cell."
    if cell.data_type == "f" and value.value is None and value.data_type not in ("s", "str", "inlineStr"):
        hint = "Open the file in Excel or LibreOffice, and save it."
        return "must hold a value, got a formula that was never computed", hint
    return None


def _cell_text(cell: Any) -> str:
    """A value as in Excel's own CSV, but with all digits of numbers, and dates by ISO 8601."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, str):
        return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), value)
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and value >= 0 and ZEROS.fullmatch(cell.number_format):
        return str(value).zfill(len(cell.number_format))
    if isinstance(value, datetime) and value.time() == time() and not re.search("[hs]", _plain(cell.number_format)):
        return value.date().isoformat()
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, timedelta):
        minutes, seconds = divmod(value.total_seconds(), 60)
        return f"{int(minutes // 60)}:{int(minutes % 60):02}:{seconds:02.0f}"
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _plain(format: str) -> str:
    """A number format without its literal texts, colors, and conditions."""
    return re.sub(r'"[^"]*"|\[[^\]]*\]|\\.', "", format).lower()


@dataclass(frozen=True)
class SqliteFile:
    """The rows of a query, or of the only table. The database is never written to."""

    file: Path
    name: str
    """The file as row ids name it."""
    query: str | None = None

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. The id of a row has its number in the result; rows before `start` are read and dropped."""
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
                            Problem(
                                f"{self.name}:{number}", f"{name} must hold texts or numbers, got bytes", hint=BYTES
                            )
                            for number in held
                        ]
                    if not problems:
                        columns = {name: [_value_text(row[i]) for _, row in part] for i, name in enumerate(header)}
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
                hint = "Close the program that writes it, or run in it: pragma wal_checkpoint(truncate)"
                raise UserError(Problem(self.name, what, hint=hint), "the data")
        # Immutable: SQLite then makes no lock and no file beside it, so a read-only folder is enough.
        database = sqlite3.connect(f"file:{quote(str(self.file.absolute()))}?mode=ro&immutable=1", uri=True)
        database.execute("pragma trusted_schema=off")
        database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY)
        return database

    def _table(self, database: sqlite3.Connection) -> str:
        """The quoted name of the only table.

        Raises:
            UserError: if there are several tables, or none.
        """
        kinds = "select name from sqlite_master where type = 'table' and name not like 'sqlite\\_%' escape '\\'"
        names = [name for (name,) in database.execute(kinds)]
        if len(names) != 1:
            got = f"{len(names)}: {', '.join(names)}" if names else "none"
            what = f"must have one table, got {got}"
            hint = f"Write dataset.query='select * from {names[0]}'." if names else ""
            raise UserError(Problem(self.name, what, hint=hint), "the data")
        return '"' + names[0].replace('"', '""') + '"'


def _value_text(value: Any) -> str:
    """A value as in CSV; empty for NULL."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


@dataclass(frozen=True)
class ParquetFile:
    """A .parquet file."""

    file: Path
    name: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. To reach a chunk, its row group is read from the start."""
        import pyarrow
        import pyarrow.parquet

        first = start.line if start else 1
        number = 1
        try:
            with pyarrow.parquet.ParquetFile(self.file) as parquet:
                index = index_of(parquet.schema_arrow.metadata or {})
                features = _features(parquet.schema_arrow)
                for group in range(parquet.num_row_groups):
                    if (end := number + parquet.metadata.row_group(group).num_rows) <= first:
                        number = end
                        continue
                    for batch in parquet.iter_batches(CHUNK, row_groups=[group]):
                        if number >= first:
                            ids = [f"{self.name}:{row}" for row in range(number, number + len(batch))]
                            yield Mark(0, number), Table(_values(batch, features), ids, index=index)
                        number += len(batch)
        except (pyarrow.ArrowException, OSError) as error:
            what = f"is not a complete parquet file: {str(error).splitlines()[0]}"
            raise UserError(Problem(self.name, what), "the data") from error


def _features(schema: Any) -> dict[str, Any]:
    """What the library datasets says of the columns in the metadata of a file that it wrote; empty for other files."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    from datasets import Features

    try:
        return dict(Features.from_arrow_schema(schema))
    except (ValueError, TypeError, KeyError, AttributeError):  # of a version with other types
        return {}


def _values(batch: Any, features: dict[str, Any]) -> dict[str, list[Any]]:
    """The columns as Python values; class indices become names.

    Hive, Impala, and older Spark write texts as untyped bytes in UTF-8. A 32-bit 0.1 becomes 0.1, as in CSV, and not
    0.10000000149, so that the same value is one category in both.
    """
    import pyarrow
    from pyarrow import compute

    found = {}
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        kind = values.type
        if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            with suppress(pyarrow.ArrowInvalid):  # bytes of something else
                values = values.cast(pyarrow.large_string())
        elif pyarrow.types.is_float32(kind):
            values = compute.cast(values.cast(pyarrow.string()), pyarrow.float64())
        found[name] = class_names(values.to_pylist(), features.get(name))
    return found


def index_of(metadata: dict[bytes, bytes]) -> list[str]:
    """The columns that are pandas' row index, from its metadata in the file.

    Format: https://pandas.pydata.org/docs/development/developer.html. A range index has no column, and is an object in
    the metadata.
    """
    try:
        named = json.loads(metadata.get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):
        return []
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def files_of_saved(folder: Path, suffixes: tuple[str, ...] = (".arrow",)) -> list[Path]:
    """The files of a Dataset from `save_to_disk`, in order; in another folder, those with one of `suffixes`.

    Other .arrow files in such a folder are caches of `map` and `filter`, and would repeat rows.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return [folder / Path(entry["filename"]).name for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return by_ending(folder, suffixes)


def splits_of_saved(folder: Path) -> list[str]:
    """The splits of a saved DatasetDict; empty for another folder."""
    try:
        return list(map(str, json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]))
    except (OSError, ValueError, KeyError, TypeError):
        return []


@dataclass(frozen=True)
class ArrowFile:
    """An .arrow file, in Arrow's stream or file format. Class indices become names."""

    file: Path
    name: str
    """The file as row ids name it."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. The id of a row has its number; batches before `start` are skipped."""
        import pyarrow
        from datasets import Features

        first, number = start.line if start else 1, 1
        try:
            with pyarrow.memory_map(str(self.file)) as file:  # memory-mapped, skipped batches cost nothing
                reader: Any
                try:
                    reader = pyarrow.ipc.open_stream(file)
                except pyarrow.ArrowInvalid:
                    file.seek(0)
                    whole = pyarrow.ipc.open_file(file)
                    reader = map(whole.get_batch, range(whole.num_record_batches))
                    schema = whole.schema
                else:
                    schema = reader.schema
                features = Features.from_arrow_schema(schema)
                for batch in reader:
                    for begin in range(0, len(batch), CHUNK):
                        part = batch.slice(begin, CHUNK)
                        if number >= first and len(part):
                            ids = [f"{self.name}:{row}" for row in range(number, number + len(part))]
                            columns = part.to_pydict()
                            values = {name: class_names(cells, features[name]) for name, cells in columns.items()}
                            yield Mark(0, number), Table(values, ids)
                        number += len(part)
        except (pyarrow.ArrowException, OSError) as error:
            what = f"is not a complete Arrow file: {str(error).splitlines()[0]}"
            raise UserError(Problem(self.name, what), "the data") from error


def class_names(values: list[Any], feature: Any) -> list[Any]:
    """The values of a column, with names instead of class indices, also in lists and objects: tags of words, boxes.

    An index may be written as text, unless a class has that name. -1 means no class, and becomes None.
    """
    return [_named(value, feature) for value in values] if feature is not None and _has_names(feature) else values


def _has_names(feature: Any) -> bool:
    """Whether a type of the library datasets is a class, or has one inside."""
    from datasets import ClassLabel

    if isinstance(feature, dict):
        return any(map(_has_names, feature.values()))
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return isinstance(feature, ClassLabel) or (inner is not None and _has_names(inner))


def _named(value: Any, feature: Any) -> Any:
    if isinstance(feature, dict):
        return {key: _named(one, feature.get(key)) for key, one in value.items()} if isinstance(value, dict) else value
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    if inner is not None and isinstance(value, dict):  # a list of objects, kept as an object of lists
        return {key: [_named(one, inner.get(key)) for one in cells] for key, cells in value.items()}
    if inner is not None:
        return [_named(one, inner) for one in value] if isinstance(value, list) else value
    return _name(value, feature) if hasattr(feature, "int2str") else value


def _name(value: Any, feature: Any) -> Any:
    if isinstance(value, str) and value not in feature.names and re.fullmatch(r"-?\d+", value):
        value = int(value)
    if not isinstance(value, int):
        return value
    return feature.int2str(value) if value >= 0 else None
