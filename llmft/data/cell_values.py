"""Cells of a table as texts, categories, numbers, and labels.

One normal form for CSV, JSON, parquet, and `predict.row`, so that equal values compare equal. A label cell has one
class or several; or each class has a column of flags.
"""

import ast
import json
import math
import re
import unicodedata
from collections.abc import Collection
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from llmft.data.source import Table, listed
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem
from llmft.tasks.targets.config import label_name

# What pandas reads as missing, UCI's `?`, the marks in dumps of MySQL and PostgreSQL, and the errors of spreadsheets.
MISSING = {
    "", "na", "n/a", "<na>", "nan", "-nan", "nat", "null", "none", "?", "\\n", "#na", "#n/a", "#n/a n/a",
    "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "#value!", "#div/0!", "#ref!", "#name?", "#num!", "#null!",
}  # fmt: skip
"""Lower-case texts that mean a missing value."""

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
FLAGS = {"true": "true", "false": "false"}  # by lower-case text
SET = {"1": True, "true": True, "0": False, "false": False}  # flags of a label


def is_missing(cell: Any, more: Collection[str] = ()) -> bool:
    """Whether a cell is empty, or a mark for a missing value in any case, or one of `more`.

    Args:
        more: further marks, in the form of `category`.
    """
    if cell is None or cell != cell:
        return True
    if isinstance(cell, str) and cell.strip().lower() in MISSING:
        return True
    return bool(more) and category(cell) in more


def text_of(cell: Any) -> str | None:
    """A cell as text, as a CSV file would have it, stripped; None for no value.

    3.0 is `3`, since a single empty cell turns a parquet column of integers into floats. Booleans are `true` and
    `false`; lists and objects are JSON. Texts are in NFC, where `ö` is one character and not two.
    """
    if cell is None or cell != cell:
        return None
    if isinstance(cell, str):
        text = cell.strip()
        return text if text.isascii() else unicodedata.normalize("NFC", text)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e16 else repr(cell)
    if isinstance(cell, Decimal):
        return format(cell, "f")
    if isinstance(cell, timedelta):
        return text_of(cell.total_seconds())
    if isinstance(cell, date | time):  # a datetime is a date
        return cell.isoformat()
    if isinstance(cell, list | dict):
        return json.dumps(cell, ensure_ascii=False, sort_keys=True, default=str)
    return str(cell)


def category(cell: Any) -> str | None:
    """A cell as the name of a category. Values that mean the same have one name: `TRUE` is `true`, and `3.0` is `3`.

    `3.10` stays, since as a version it differs from `3.1`, and so does `007`.
    """
    text = text_of(cell)
    if text is None or len(text) < 3:
        return text
    if whole := WHOLE.fullmatch(text):
        return whole[1]
    return FLAGS.get(text.lower(), text)


def number(cell: Any) -> float:
    """A cell as a number; NaN if it is not a finite number.

    Stricter than Python's float, which also accepts `1_000`, `١٢`, and `infinity`. In tables these are not numbers.
    """
    if isinstance(cell, bool):
        return math.nan
    if isinstance(cell, str) and not NUMBER.fullmatch(cell := cell.strip().replace("\u2212", "-")):
        return math.nan
    try:
        found = float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def to_one_type(values: list[Any], kinds: Collection[type] | None) -> list[Any]:
    """The cells of a column as one type, which Arrow needs: numbers if all are numbers, else texts.

    Args:
        kinds: the types of all non-empty cells of the column, of which `values` may be a chunk; None if unknown, and
            all become texts.
    """
    if kinds and set(kinds) <= {int, float}:
        values = [None if value is None or isinstance(value, str) or value != value else value for value in values]
        if float in kinds:
            try:
                return [None if value is None else float(value) for value in values]
            except OverflowError:  # a whole number above 1e308
                pass
        elif all(value is None or -(2**63) <= value < 2**63 for value in values):
            return values
    return list(map(text_of, values))


def parts_of(name: str, columns: Collection[str]) -> list[str]:
    """The columns of a name: the one with that name, or those nested in an object of that name."""
    return [name] if name in columns else [part for part in columns if part.startswith(f"{name}.")] or [name]


def flatten_objects(table: Table) -> tuple[dict[str, list[Any]], list[Problem]]:
    """The columns of a table, with objects flattened: `who` with `active` and `zip` becomes `who.active` and `who.zip`.

    Returns:
        the columns, and a problem for each that has objects among other values, or the same name as another.
    """
    columns: dict[str, list[Any]] = {}
    problems: list[Problem] = []
    waiting = list(reversed(table.columns.items()))
    while waiting:
        name, values = waiting.pop()
        if not any(isinstance(value, dict) for value in values):
            if name in columns:
                problems.append(Problem("dataset.columns.features", f"two columns are called {name!r}"))
            columns[name] = values
            continue
        odd = next((row for row, value in enumerate(values) if not isinstance(value, dict | None)), None)
        if odd is not None:
            what = f"{name} is {values[odd]!r}, and an object in other rows"
            problems.append(Problem(table.ids[odd], what, hint="Write the same kind of value in every row."))
            continue
        keys = sorted({key for value in values for key in value or ()})
        parts = ((f"{name}.{key}", [value.get(key) if value else None for value in values]) for key in keys)
        waiting += reversed(list(parts))
    return columns, problems


def label(value: Any) -> str | None:
    """A class as text: 1 and 1.0 are `1`, `True` and `TRUE` are `true`; None for 1.5, a list, and all other values."""
    if isinstance(value, str):
        return label_name(value.strip()) or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None


def labels(value: Any, spec: Column) -> list[str] | None:
    """The distinct classes in a cell: a list, or a text with separators. An empty cell has none.

    A list of as many flags as there are declared labels, such as `[1, 0, 1]`, means the labels whose flag is set.

    Returns:
        None for a missing cell, or one that is neither.
    """
    if value is None:
        return None
    members = items(value, spec)
    found = [label(part) for part in members]
    if None in found:
        return None
    names = list(map(str, found))
    # If the labels themselves are called 0 and 1, [0, 1] names both of them, and is not two flags.
    if len(names) == len(spec.labels) > (2 if {"0", "1"} & set(spec.labels) else 1) and set(names) <= set(SET):
        return [name for name, flag in zip(spec.labels, names, strict=True) if SET[flag]]
    once = list(dict.fromkeys(names))
    # `red,red` is a slip, and counts once. `1,0,1` is most likely flags without declared labels: an error.
    spelled = isinstance(value, str) and not set(once) <= {"0", "1"}
    return once if len(once) == len(names) or spelled else None


def items(value: Any, spec: Column) -> list[Any]:
    """The members of a list, also of one written as text by JSON or Python; or the parts between separators."""
    if isinstance(value, str) and (found := list_in(value)) is not None:
        return found
    if isinstance(value, str):
        return [part.strip() for part in value.split(spec.separator) if part.strip()]
    return value if isinstance(value, list) else [value]


def list_in(text: str) -> list[Any] | None:
    """The list that a text written by JSON or Python means; None for another text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            return list(parse(text))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def joined_name(dataset: DatasetConfig, role: str) -> str:
    """The column of a role; for several columns of flags, the name of the one into which they are joined."""
    named = dataset.columns.get(role, role)
    return named if isinstance(named, str) else ",".join(named)


def flag_columns(dataset: DatasetConfig, roles: dict[str, Column]) -> list[str]:
    """The columns of flags: `dataset.columns.label=[red,round]`, as `pandas.get_dummies` writes labels."""
    named = (dataset.columns.get(role) for role, spec in roles.items() if spec.kind in ("label", "labels"))
    return [name for names in named if isinstance(names, list) for name in names]


def join_flags(table: Table, dataset: DatasetConfig, roles: dict[str, Column], problems: list[Problem]) -> Table:
    """The table with flag columns joined to one more column of labels; mistakes are added to `problems`."""
    columns = dict(table.columns)
    for role, spec in roles.items():
        names = dataset.columns.get(role)
        if spec.kind not in ("label", "labels") or not isinstance(names, list) or any(n not in columns for n in names):
            continue
        cells: list[Any] = []
        faults: list[Problem] = []
        for row, flags in zip(
            table.ids, zip(*(map(category, columns[name]) for name in names), strict=True), strict=True
        ):
            odd = [name for name, flag in zip(names, flags, strict=True) if not is_missing(flag) and flag not in SET]
            given = [name for name, flag in zip(names, flags, strict=True) if flag is not None and SET.get(flag)]
            if odd:
                faults.append(Problem(row, f"{odd[0]} is not a flag, which is 1 or 0, or true or false"))
            elif spec.kind == "label" and len(given) != 1 and not any(map(is_missing, flags)):
                hint = "For any number of labels, write task.problem=multi_label."
                faults.append(
                    Problem(row, f"{len(given)} of {', '.join(names)} are set, and one is the label", hint=hint)
                )
            whole = None if any(map(is_missing, flags)) else given
            cells.append(whole if spec.kind == "labels" or not whole else whole[0])
        problems += listed(faults)
        columns[",".join(names)] = cells
    return Table(columns, table.ids, table.left_out)


def classes(label: Any) -> list[str]:
    """The classes in a cell of the role `label`: one, several, or none if it is empty or a number."""
    if isinstance(label, list):
        return label
    return [label] if isinstance(label, str) else []
