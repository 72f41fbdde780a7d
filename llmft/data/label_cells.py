"""Cells of the column `label`: one class, several in one cell, or a flag for each in columns of their own."""

import ast
import json
from typing import Any

from llmft.data.cells import category, is_missing
from llmft.data.table import Table, listed
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem
from llmft.tasks.targets.config import label_name

SET = {"1": True, "true": True, "0": False, "false": False}  # flags of a label


def label(value: Any) -> str | None:
    """A class as text: 1 and 1.0 are `1`, `True` and `TRUE` are `true`; what is no class (1.5, a list) gives None."""
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
    """Classes, each once: those of a list, or between the separators of a text. An empty cell holds none of them.

    A list of as many flags as there are declared labels, such as `[1, 0, 1]`, means those whose flag is set.
    """
    if value is None:
        return None
    members = items(value, spec)
    found = [label(part) for part in members]
    if None in found:
        return None
    names = list(map(str, found))
    # Of two labels that are called 0 and 1, a list may name both.
    if len(names) == len(spec.labels) > (2 if {"0", "1"} & set(spec.labels) else 1) and set(names) <= set(SET):
        return [name for name, flag in zip(spec.labels, names, strict=True) if SET[flag]]
    once = list(dict.fromkeys(names))
    spelled = isinstance(value, str) and not set(once) <= {"0", "1"}  # `red,,red` is a slip, `1,0,1` is not
    return once if len(once) == len(names) or spelled else None


def items(value: Any, spec: Column) -> list[Any]:
    """The members of a list, also of one that JSON or Python wrote as text; or what stands between separators."""
    if isinstance(value, str) and (found := list_in(value)) is not None:
        return found
    if isinstance(value, str):
        return [part.strip() for part in value.split(spec.separator) if part.strip()]
    return value if isinstance(value, list) else [value]


def list_in(text: str) -> list[Any] | None:
    """The list that JSON or Python wrote as a text; None for another text."""
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
    """The column of a role; of several that hold a flag each, that which they are joined into."""
    named = dataset.columns.get(role, role)
    return named if isinstance(named, str) else ",".join(named)


def flag_columns(dataset: DatasetConfig, roles: dict[str, Column]) -> list[str]:
    """The columns that hold a flag each: `dataset.columns.label=[red,round]`, as `get_dummies` writes labels."""
    named = (dataset.columns.get(role) for role, spec in roles.items() if spec.kind in ("label", "labels"))
    return [name for names in named if isinstance(names, list) for name in names]


def with_joined(table: Table, dataset: DatasetConfig, roles: dict[str, Column], problems: list[Problem]) -> Table:
    """The table with one column more for labels that come as columns of flags; what is wrong goes to `problems`."""
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
                faults.append(Problem(row, f"{odd[0]} is no flag, which is 1 or 0, or true or false"))
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
