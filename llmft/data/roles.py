"""From columns to roles: a Table of whatever the file has becomes rows of what the task asks for."""

from difflib import get_close_matches
from typing import Any

from llmft.data.table import Table, listed
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError


def assign(table: Table, dataset: DatasetConfig, roles: dict[str, Column], split: str) -> Table:
    """The table with one column a role, each of the role's kind.

    A role without a column in `dataset.columns` takes the column of its own name; `features` take all columns that
    no other role took.

    Raises:
        UserError: naming columns that are missing, with those that were found, and values of the wrong kind by row.
    """
    problems = [
        Problem(f"dataset.columns.{role}", "the task has no such role", hint=f"Its roles are {', '.join(roles)}.")
        for role in dataset.columns
        if role not in roles
    ]
    taken = {role: str(dataset.columns.get(role, role)) for role, spec in roles.items() if spec.kind != "features"}
    found = ", ".join(table.columns)
    columns: dict[str, list[Any]] = {}
    for role, spec in roles.items():
        if spec.kind == "features":
            chosen = dataset.columns.get(role) or [c for c in table.columns if c not in taken.values()]
            names = [chosen] if isinstance(chosen, str) else chosen
            missing = [name for name in names if name not in table.columns]
            problems += [_missing(f"dataset.columns.{role}", name, split, found, list(table.columns)) for name in missing]
            if not missing:
                columns[role] = [dict(zip(names, row, strict=True)) for row in zip(*(table.columns[n] for n in names), strict=True)]
            if not names:
                problems.append(Problem(f"dataset.columns.{role}", f"no column is left for it; {split} has {found}"))
        elif (name := taken[role]) in table.columns:
            try:
                columns[role] = _typed(table.columns[name], table.ids, role, name, spec)
            except UserError as error:
                problems += error.problems
        elif spec.required or role in dataset.columns:
            problems.append(_missing(f"dataset.columns.{role}", name, split, found, list(table.columns)))
    if problems:
        raise UserError(problems, "the data")
    return Table(columns, table.ids)


def _missing(key: str, name: str, split: str, found: str, names: list[str]) -> Problem:
    nearest = get_close_matches(name, names, 1)
    hint = f"Did you mean {key}={nearest[0]}?" if nearest else f"Write {key}=COLUMN."
    return Problem(key, f"{split} has no column {name!r}; it has {found}", hint=hint)


def _typed(values: list[Any], ids: list[str], role: str, name: str, spec: Column) -> list[Any]:
    """Values of one role: texts are strings, labels become strings and are all of one type."""
    if spec.kind == "text":
        wrong = [(i, v) for i, v in enumerate(values) if not isinstance(v, str) and v is not None]
        problems = [Problem(ids[i], f"{name} is {v!r}, not a text") for i, v in wrong]
        if problems:
            raise UserError(listed(problems), "the data")
        return values
    types: dict[type, int] = {}
    for value in values:
        if value is not None:
            types[type(value)] = types.get(type(value), 0) + 1
    labels = [_label(value) for value in values]
    if len(types) > 1:
        counts = " and ".join(f"{count} of type {t.__name__}" for t, count in sorted(types.items(), key=lambda x: -x[1]))
        rare = min(types, key=lambda t: types[t])
        row = next(i for i, value in enumerate(values) if type(value) is rare)
        raise UserError(Problem(ids[row], f"{name} is {values[row]!r}, unlike the others: {counts}"), "the data")
    bad = [Problem(ids[i], f"{name} is {v!r}, not a class") for i, v in enumerate(labels) if v is None and values[i] is not None]
    if bad:
        raise UserError(listed(bad), "the data")
    return labels


def _label(value: Any) -> str | None:
    """A class as text: 1 and 1.0 are `1`; what is no class (1.5, a list) gives None."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None
