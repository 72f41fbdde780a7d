"""From columns to roles: a Table of whatever the file has becomes rows of what the task asks for."""

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any

from llmft.data.cells import flattened, is_missing, number, of_one_type, parts_of
from llmft.data.label_cells import flag_columns, items, joined_name, label, labels, with_joined
from llmft.data.table import Table, listed
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError


@dataclass
class Kinds:
    """The types of a column's values, over all rows of a split; empty cells have none."""

    counts: Counter[type] = field(default_factory=Counter)
    first: dict[type, tuple[str, Any]] = field(default_factory=dict)
    """The first row of each type, and its value."""

    def add(self, values: list[Any], ids: list[str]) -> None:
        """Count some more rows."""
        types = [None if _is_empty(value) else type(value) for value in values]
        for kind, count in Counter(types).items():
            if kind is not None:
                if kind not in self.first:
                    row = types.index(kind)
                    self.first[kind] = (ids[row], values[row])
                self.counts[kind] += count


def kinds_of(table: Table) -> dict[str, Kinds]:
    """The types of each column."""
    found = {name: Kinds() for name in table.columns}
    for name, kinds in found.items():
        kinds.add(table.columns[name], table.ids)
    return found


def assign(
    table: Table, dataset: DatasetConfig, roles: dict[str, Column], split: str, kinds: dict[str, Kinds] | None = None
) -> Table:
    """The table with one column a role, each of the role's kind.

    A role without a column in `dataset.columns` takes the column of its own name; `features` take all columns that
    no other role took.

    Args:
        kinds: the types of each column, where `table` is only a part of the split's rows.

    Raises:
        UserError: naming columns that are missing, with those that were found, and values of the wrong kind by row.
    """
    kept = {name: values for name, values in table.columns.items() if name not in dataset.ignore}
    table = Table(kept, table.ids, table.left_out)
    problems = [
        Problem(f"dataset.columns.{role}", "the task has no such role", hint=f"Its roles are {', '.join(roles)}.")
        for role in dataset.columns
        if role not in roles
    ]
    table = with_joined(table, dataset, roles, problems)
    partial_rows, kinds = kinds is not None, kinds or kinds_of(table)
    lists = [name for name, found in kinds.items() if name in table.columns and set(found.counts) == {list}]
    taken = columns_of(dataset, roles, table.columns, lists)
    found = ", ".join(table.columns)
    columns: dict[str, list[Any]] = {}
    for role, spec in roles.items():
        if spec.kind == "features":
            cells, faults = flattened(table.without({*taken.values(), *flag_columns(dataset, roles)}))
            problems += faults
            chosen = dataset.columns.get(role) or list(cells)
            names = [
                part for name in ([chosen] if isinstance(chosen, str) else chosen) for part in parts_of(name, cells)
            ]
            missing = [name for name in names if name not in cells and name not in table.columns]
            problems += [
                Problem(f"dataset.columns.{role}", f"{name!r} already plays another role, which would tell the answer")
                for name in names
                if name in table.columns and name in (*taken.values(), *flag_columns(dataset, roles))
            ]
            problems += [_missing(f"dataset.columns.{role}", [name], split, found, list(cells)) for name in missing]
            if all(name in cells for name in names):
                types = {} if partial_rows else kinds_of(Table(cells, table.ids))
                types |= {name: found for name, found in kinds.items() if name in cells}
                problems += [_torn(name, types[name]) for name in names if name in types and _is_torn(types[name])]
                values = (of_one_type(cells[name], types[name].counts if name in types else None) for name in names)
                columns[role] = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
            if not names and not faults:
                problems.append(Problem(f"dataset.columns.{role}", f"no column is left for it; {split} has {found}"))
        elif (name := taken[role]) in table.columns:
            try:
                columns[role] = _typed(
                    table.columns[name], table.ids, name, spec, kinds.get(name, Kinds()), dataset.ignore
                )
            except UserError as error:
                problems += error.problems
        elif spec.required or role in dataset.columns or (spec.unless and taken[spec.unless] not in table.columns):
            names = [name, taken[spec.unless]] if spec.unless else [name]
            problems.append(_missing(f"dataset.columns.{role}", names, split, found, list(table.columns)))
    if not problems and not any(roles[role].is_input for role in columns):
        wanted = ", ".join(taken[role] for role, spec in roles.items() if spec.is_input)
        what = f"{split} has none of the columns that could be read: {wanted}; it has {found}"
        problems.append(Problem("dataset.columns", what, hint="Write dataset.columns.ROLE=COLUMN."))
    if problems:
        raise UserError(problems, "the data")
    return Table(columns, table.ids, table.left_out)


def columns_of(
    dataset: DatasetConfig, roles: dict[str, Column], columns: Collection[str], lists: Collection[str]
) -> dict[str, str]:
    """The column of each role but `features`: the one that was named, that of the role's name, or of an export's.

    Args:
        lists: those of `columns` that hold lists alone, as exports do.
    """
    taken = {role: joined_name(dataset, role) for role, spec in roles.items() if spec.kind != "features"}
    for role, spec in roles.items():
        others = [taken[other] for other, found in roles.items() if found.unless == role]
        if spec.also and role not in dataset.columns and not {role, *others} & set(columns):
            taken[role] = next((name for name in spec.also if name in lists), role)
    return taken


def unread(columns: Iterable[str], dataset: DatasetConfig, roles: dict[str, Column]) -> list[str]:
    """The columns that play no role, but for those that no one misses: what a row is called, and its split."""
    named = dataset.columns.get("features")
    if any(spec.kind == "features" for spec in roles.values()) and not named:
        return []
    columns = list(columns)
    taken = set(columns_of(dataset, roles, columns, columns).values())
    taken |= {*flag_columns(dataset, roles), *dataset.ignore, "id", "split"}
    taken |= {named} if isinstance(named, str) else {*(named or ())}
    return [name for name in columns if name not in taken]


def _is_torn(kinds: Kinds) -> bool:
    """Whether a column holds lists in some rows and something else in others."""
    return list in kinds.counts and len(kinds.counts) > 1


def _torn(name: str, kinds: Kinds) -> Problem:
    row, value = [*kinds.first.values()][1]
    return Problem(row, f"{name} is {value!r}, which does not go with the rows before it")


def _stands_for_none(cell: Any, spec: Column) -> bool:
    """Whether a cell of a label is one of the marks of tables, such as NA, and no label of that name was declared."""
    return is_missing(cell, spec.missing or ()) and not (isinstance(cell, str) and cell.strip() in spec.labels)


def _missing(key: str, wanted: list[str], split: str, found: str, names: list[str]) -> Problem:
    """None of the columns `wanted` is there, of which the first would play the role."""
    nearest = get_close_matches(wanted[0], names, 1)
    hint = f"Did you mean {key}={nearest[0]}?" if nearest else f"Write {key}=COLUMN."
    return Problem(key, f"{split} has no column {' or '.join(map(repr, wanted))}; it has {found}", hint=hint)


def _typed(
    values: list[Any], ids: list[str], name: str, spec: Column, kinds: Kinds, ignore: Sequence[str] = ()
) -> list[Any]:
    """Values of one role: texts are strings, classes become strings, numbers floats, and all are of one type."""
    read: Callable[[Any], Any]
    if spec.kind == "text":
        read, what = _text, "not a text"
    elif spec.kind == "texts":
        read, what = _texts, "neither a text nor a list of texts"
    elif spec.kind == "words":
        read, what = _words, "not a list of texts"
    elif spec.kind == "json":
        read, what = partial(_json, ignore=ignore), "not a value of JSON"
    elif spec.kind == "number":
        read, what = _number, "not a number"
    elif spec.kind == "labels":
        read, what = partial(labels, spec=spec), "not a list of classes, each once"
    else:
        read, what = label, "not a class"
    if spec.missing is not None or spec.kind == "number":
        values = [None if _stands_for_none(value, spec) else value for value in values]
        kinds = Kinds()
        kinds.add(values, ids)
    found = [read(value) for value in values]
    wrong = [i for i, value in enumerate(values) if found[i] is None and not _is_empty(value)]
    if wrong:
        # Such as [1, 0, 1, 1], which says of each of four labels whether it is given.
        flags = spec.kind == "labels" and any(set(map(str, items(values[i], spec))) <= {"0", "1"} for i in wrong)
        hint = (
            "If it says of each label whether it is given, name them in order: task.labels=[A,B,...]." if flags else ""
        )
        raise UserError(
            listed([Problem(ids[i], f"{name} is {values[i]!r}, {what}", hint=hint) for i in wrong]), "the data"
        )
    if spec.kind in ("label", "labels") and len(kinds.counts) > 1:
        row, value = kinds.first[min(kinds.counts, key=lambda kind: kinds.counts[kind])]
        counts = " and ".join(f"{count} of type {kind.__name__}" for kind, count in kinds.counts.most_common())
        raise UserError(Problem(row, f"{name} is {value!r}, unlike the others: {counts}"), "the data")
    return found


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str] | None:
    """A list of texts; one alone is a list of itself."""
    if isinstance(value, str):
        return [value]
    whole = isinstance(value, list) and all(isinstance(text, str) for text in value)
    return value if whole else None


def _words(value: Any) -> list[str] | None:
    """A list of texts, or a text that is split at spaces."""
    if isinstance(value, str):
        return value.split()
    whole = isinstance(value, list) and all(isinstance(word, str) for word in value)
    return value if whole else None


def _json(value: Any, ignore: Sequence[str] = ()) -> str | None:
    """Any value as JSON, in which a cell of text may hold a list or a table itself.

    Args:
        ignore: keys that are left out of the tables in a list, such as those of messages.
    """
    if value is None:
        return None
    if ignore:
        with suppress(ValueError):
            value = json.loads(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
        if isinstance(value, list):
            value = [
                {key: part for key, part in one.items() if key not in ignore} if isinstance(one, dict) else one
                for one in value
            ]
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            json.loads(value)
            return value
        except ValueError:
            pass
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return None


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value != value  # NaN is not itself


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    found = number(value)
    return None if math.isnan(found) else found
