"""Maps the columns of a file to the roles of a task, and their values to the types of the roles."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from llmft.data.cell_values import (
    SET,
    category,
    flag_columns,
    flatten_objects,
    is_missing,
    items,
    join_flags,
    joined_name,
    label,
    labels,
    list_in,
    number,
    parts_of,
    to_one_type,
)
from llmft.data.images import image_cell
from llmft.data.source import Table, listed
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError

FLAT_FORMATS = ("csv", "tsv", "excel", "sqlite")
"""Formats without lists and objects: a text there may be JSON of one."""

INDEX = re.compile(r"__index_level_\d+__|Unnamed: 0(\.\d+)*|")
"""Names that pandas gives to its row index: in parquet, in a CSV that was read and written again, in a CSV (empty)."""

ARRAY = re.compile(r"\[[-+.\deE\s]+\]")
"""A list of numbers as numpy prints it, without commas."""

SEEN = 1000  # rows that are searched for lists and flags: to parse all cells would take seconds

_ABSENT = object()


@dataclass
class Kinds:
    """The types of a column's values over all rows of a split, without empty cells."""

    counts: Counter[type] = field(default_factory=Counter)
    first: dict[type, tuple[str, Any]] = field(default_factory=dict)
    """By type, the id and value of its first row."""

    def add(self, values: list[Any], ids: list[str]) -> None:
        """Add more rows: their values, and their ids."""
        types = [None if _is_empty(value) else type(value) for value in values]
        for kind, count in Counter(types).items():
            if kind is not None:
                if kind not in self.first:
                    row = types.index(kind)
                    self.first[kind] = (ids[row], values[row])
                self.counts[kind] += count


def kinds_of(table: Table) -> dict[str, Kinds]:
    """The types of each column."""
    by_column = {name: Kinds() for name in table.columns}
    for name, kinds in by_column.items():
        kinds.add(table.columns[name], table.ids)
    return by_column


def assign(
    table: Table, dataset: DatasetConfig, roles: dict[str, Column], split: str, kinds: dict[str, Kinds] | None = None
) -> Table:
    """The table with one column per role, with values of the role's type.

    A role without a column in `dataset.columns` takes the column with its own name; `features` take all columns that
    no other role has.

    Args:
        split: the name of the split, for errors.
        kinds: the types of each column over the whole split, if `table` is only a chunk of its rows.

    Raises:
        UserError: for missing columns, with those that exist, and for values of a wrong type, by row.
    """
    taken = {role: joined_name(dataset, role) for role, spec in roles.items() if spec.kind != "features"}
    kept = {name: values for name, values in table.columns.items() if name not in dataset.ignore}
    # Nested values first: from here on, `translation.en` is a column like any other.
    table = _with_nested(Table(kept, table.ids, table.left_out, table.index), taken.values(), whole=kinds is None)
    # Before flag columns are joined: the index of pandas is recognized as the first column.
    counting = index_columns(table)
    problems = [
        Problem(f"dataset.columns.{role}", "the task has no such role", hint=f"Its roles are {', '.join(roles)}.")
        for role in dataset.columns
        if role not in roles
    ]
    table = join_flags(table, dataset, roles, problems)
    # For a chunk, `kinds` has the types of the whole split, so that all chunks agree on the type of a column. It does
    # not have the columns that were made above: for these the types in the chunk must do.
    partial_rows = kinds is not None
    unknown = {name: values for name, values in table.columns.items() if name not in (kinds or {})}
    kinds = (kinds or {}) | kinds_of(Table(unknown, table.ids))
    lists = [name for name, kind in kinds.items() if name in table.columns and set(kind.counts) == {list}]
    taken = columns_of(dataset, roles, table.columns, lists)
    known = _names(table)
    available = ", ".join(known)
    columns: dict[str, list[Any]] = {}
    for role, spec in roles.items():
        if spec.kind == "features":
            # Never a column of another role: it may be the label itself, and the model would score 100%.
            cells, faults = flatten_objects(table.without({*taken.values(), *flag_columns(dataset, roles)}))
            problems += faults
            # A column that counts the rows is a feature only if the config names it: the order of a file often follows
            # the label.
            chosen = dataset.columns.get(role) or [
                name for name in cells if name not in taken.values() and name not in counting
            ]
            names = [
                part for name in ([chosen] if isinstance(chosen, str) else chosen) for part in parts_of(name, cells)
            ]
            missing = [name for name in names if name not in cells and name not in table.columns]
            problems += [
                Problem(f"dataset.columns.{role}", f"must not have {name!r}, which already has another role")
                for name in names
                if name in table.columns and name in (*taken.values(), *flag_columns(dataset, roles))
            ]
            problems += [_missing(f"dataset.columns.{role}", [name], split, available, list(cells)) for name in missing]
            if all(name in cells for name in names):
                types = {} if partial_rows else kinds_of(Table(cells, table.ids))
                types |= {name: kind for name, kind in kinds.items() if name in cells}
                problems += [_mixed(name, types[name]) for name in names if name in types and _is_mixed(types[name])]
                values = (to_one_type(cells[name], types[name].counts if name in types else None) for name in names)
                columns[role] = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
            if not names and not faults:
                problems.append(
                    Problem(f"dataset.columns.{role}", f"no column is left for it; {split} has {available}")
                )
        elif (name := taken[role]) in table.columns:
            try:
                columns[role] = _typed(
                    table.columns[name], table.ids, name, role, spec, kinds.get(name, Kinds()), dataset
                )
            except UserError as error:
                problems += error.problems
        elif spec.required or role in dataset.columns or (spec.unless and taken[spec.unless] not in table.columns):
            names = [name, taken[spec.unless]] if spec.unless else [name]
            problem = _missing(f"dataset.columns.{role}", names, split, available, known)
            problem = problem._replace(hint=f"{problem.hint} {spec.otherwise}".strip())
            # Labels written by `get_dummies` have no column `label`, and the nearest name would be a wrong guess.
            flags = _flags_hint(role, spec, table.without(set(taken.values()))) if role not in dataset.columns else ""
            problems.append(problem._replace(hint=flags or problem.hint))
    # Rows of interactions have no input: what a user had becomes one later.
    inputs = ", ".join(taken.get(role, role) for role, spec in roles.items() if spec.is_input)
    if inputs and not problems and not any(roles[role].is_input for role in columns):
        what = f"must give a column to one of {inputs}; {split} has {available}"
        problems.append(Problem("dataset.columns", what, hint="Write dataset.columns.ROLE=COLUMN."))
    if problems:
        raise UserError(problems, "the data")
    return Table(columns, table.ids, table.left_out)


def locate_images(table: Table, folder: Path, names: Collection[str]) -> Table:
    """The rows of a file in `folder`, with cells in the columns `names` of images: a path is relative to the file."""
    images = {
        name: [image_cell(v, folder) or v for v in table.columns[name]] for name in names if name in table.columns
    }
    return Table(table.columns | images, table.ids, table.left_out, table.index) if images else table


def columns_of(
    dataset: DatasetConfig, roles: dict[str, Column], columns: Collection[str], lists: Collection[str]
) -> dict[str, str]:
    """The column of each role except `features`: from the config, else the role's own name, or that of an export.

    Args:
        columns: all columns of the file.
        lists: those of `columns` that hold only lists, as exports do.
    """
    taken = {role: joined_name(dataset, role) for role, spec in roles.items() if spec.kind != "features"}
    for role, spec in roles.items():
        # The name that an export uses, such as `entities`, counts only if no column has the role's own name.
        others = [taken[other] for other, column in roles.items() if column.unless == role]
        if spec.also and role not in dataset.columns and not {role, *others} & set(columns):
            taken[role] = next((name for name in spec.also if name in lists), role)
    return taken


def unread(columns: Iterable[str], dataset: DatasetConfig, roles: dict[str, Column]) -> list[str]:
    """The columns without a role, except row indices, `id`, and `split`, which nobody expects to be read."""
    named = dataset.columns.get("features")
    if any(spec.kind == "features" for spec in roles.values()) and not named:
        return []
    columns = list(columns)
    taken = set(columns_of(dataset, roles, columns, columns).values())
    taken |= {*flag_columns(dataset, roles), *dataset.ignore, "id", "split"}
    taken |= {named} if isinstance(named, str) else {*(named or ())}
    taken |= {name[: dot.start()] for name in taken for dot in re.finditer(r"\.", name)}  # objects around nested values
    return [name for name in columns if name not in taken and not INDEX.fullmatch(name)]


def index_columns(table: Table) -> list[str]:
    """The columns that are pandas' row index: useless for new rows, and the order of a file may give the label away."""
    first = next(iter(table.columns), "")
    return [
        name
        for name in table.columns
        if name in table.index or (INDEX.fullmatch(name) and (name == first or name.startswith("__")))
    ]


def index_note(split: str, table: Table, dataset: DatasetConfig, roles: dict[str, Column]) -> list[str]:
    """A note on row indices that were not used as features."""
    role = next((role for role, spec in roles.items() if spec.kind == "features"), None)
    taken = {joined_name(dataset, other) for other in roles if other != role}
    names = [name for name in index_columns(table) if name not in taken]
    if role is None or role in dataset.columns or not names:
        return []
    what = "which counts or names the rows" if len(names) == 1 else "which count or name the rows"
    hint = f"if it is one, name all features in dataset.columns.{role}"
    named = ", ".join(repr(name) if name else "the column without a name" for name in names)
    return [f"{split}: {named}, {what}, is not a feature; {hint}"]


def list_notes(split: str, table: Table, roles: dict[str, Column], format: str) -> list[str]:
    """A note on each column of texts, classes, or features whose cells are lists written as text.

    Args:
        table: rows by role.
    """
    if format not in FLAT_FORMATS:
        return []
    columns: dict[str, list[Any]] = {}
    for role, spec in roles.items():
        values = table.columns.get(role, [])[:SEEN]
        if spec.kind == "features":
            columns |= {name: [row[name] for row in values] for name in (values[0] if values else ())}
        elif spec.kind in ("text", "texts", "label"):
            columns[role] = [value[0] if isinstance(value, list) and value else value for value in values]
    notes = []
    for name, values in columns.items():
        cells = [value for value in values if isinstance(value, str) and value.strip()]
        lists = [cell for cell in cells if ARRAY.fullmatch(cell.strip()) or list_in(cell) is not None]
        # More than half, since a single text may look like a list by chance, as `[sic]` does.
        if 2 * len(lists) > len(cells):
            short = lists[0] if len(lists[0]) <= 40 else f"{lists[0][:40]}…"
            notes.append(f"{split}: {name} has lists written as text, such as {short}, and each is read as one text")
    return notes


def _names(table: Table) -> list[str]:
    """The names of columns, and of the values nested in objects, `COLUMN.KEY`."""
    names = []
    for name, values in table.columns.items():
        parts = next((value for value in values if isinstance(value, dict)), {})
        names += [name, *(f"{name}.{part}" for part in parts)]
    return list(dict.fromkeys(names))


def _with_nested(table: Table, names: Iterable[str], whole: bool) -> Table:
    """The table with a column for each name such as `translation.en`: the values nested in the objects of a column.

    Args:
        whole: whether these are all rows of the split; if none of them has the key, the column is missing.
    """
    columns = dict(table.columns)
    for name in names:
        for dot in re.finditer(r"\.", name) if name not in columns else ():
            if (values := table.columns.get(name[: dot.start()])) is None:
                continue
            parts = [_part(value, name[dot.end() :]) for value in values]
            # In a chunk, other rows may have the key. Objects that are all empty do not tell their keys either.
            if not whole or set(map(id, parts)) != {id(_ABSENT)} or not any(map(bool, values)):
                columns[name] = [None if part is _ABSENT else part for part in parts]
                break
    return Table(columns, table.ids, table.left_out, table.index)


def has_part(table: Table, name: str) -> bool:
    """Whether `name` is a column, or a value nested in one."""
    return name in _with_nested(table, [name], whole=True).columns


def _part(value: Any, path: str) -> Any:
    """The value of an object at `a.b`: under the key `a.b`, or under `b` in `a`."""
    if not isinstance(value, dict):
        return _ABSENT
    if path in value:
        return value[path]
    # A key may contain dots itself, so each dot may be the end of a key: `a.b.c` also means {"a.b": {"c": 1}}.
    tries = (_part(value.get(path[: dot.start()]), path[dot.end() :]) for dot in re.finditer(r"\.", path))
    return next((part for part in tries if part is not _ABSENT), _ABSENT)


def _is_mixed(kinds: Kinds) -> bool:
    """Whether a column has lists in some rows and other types in others."""
    return list in kinds.counts and len(kinds.counts) > 1


def _mixed(name: str, kinds: Kinds) -> Problem:
    """The first list where lists are few, else the first value that is none."""
    few = 2 * kinds.counts[list] <= kinds.counts.total()
    row, value = next(first for kind, first in kinds.first.items() if (kind is list) == few)
    return Problem(row, f"{name} is {value!r}, which does not fit the other rows")


def _is_missing_label(cell: Any, spec: Column) -> bool:
    """Whether a label cell is a mark for a missing value, such as NA, and not a declared label of that name."""
    return is_missing(cell, spec.missing or ()) and not (isinstance(cell, str) and cell.strip() in spec.labels)


def _missing(key: str, expected: list[str], split: str, available: str, known: list[str]) -> Problem:
    """The problem that none of the columns `expected` exists; the first of them is the one to suggest for."""
    nearest = get_close_matches(expected[0], known, 1)
    hint = f"Did you mean {key}={nearest[0]}?" if nearest else f"Write {key}=COLUMN."
    return Problem(key, f"{split} has no column {' or '.join(map(repr, expected))}; it has {available}", hint=hint)


def _flags_hint(role: str, spec: Column, table: Table) -> str:
    """What to write for labels as columns of flags, as `get_dummies` makes them; empty if there are no such columns."""
    columns = {name: [*map(category, values[:SEEN])] for name, values in table.columns.items()}
    names = [name for name, cells in columns.items() if {*cells} == {"0", "1"} or {*cells} == {"true", "false"}]
    if spec.kind not in ("label", "labels") or len(names) < 2:
        return ""
    # If every row has exactly one flag set, they are a single class, one-hot encoded.
    sums = {sum(SET[str(cell)] for cell in row) for row in zip(*(columns[name] for name in names), strict=True)}
    problem = " task.problem=multi_label" if spec.kind == "label" and sums != {1} else ""
    flags = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    words = f"dataset.columns.{role}=[{','.join(names)}]{problem}"
    return f"If {flags} are flags, one for each label, write {words}."


def _typed(
    values: list[Any], ids: list[str], name: str, role: str, spec: Column, kinds: Kinds, dataset: DatasetConfig
) -> list[Any]:
    """The values of a role: texts as strings, classes as strings, numbers as floats; all of one type.

    Raises:
        UserError: for values of a wrong type, by row.
    """
    read: Callable[[Any], Any]
    if spec.ids:
        values = [_ids(value) for value in values]
    if spec.kind == "text":
        read, what = _text, "not a text"
    elif spec.kind == "texts":
        read, what = _texts, "neither a text nor a list of texts"
    elif spec.kind == "words":
        read, what = partial(_words, cells=dataset.format in FLAT_FORMATS), "not a list of texts"
    elif spec.kind == "json":
        read, what = partial(_json, spec=spec, dataset=dataset), "not a value of JSON"
    elif spec.kind == "image":
        read, what = partial(image_cell, folder=Path()), "neither the path of an image nor an image"
    elif spec.kind == "number":
        read, what = _number, "not a number"
    elif spec.kind == "labels":
        read, what = partial(labels, spec=spec), "not a list of distinct classes"
    elif spec.at_least is not None:
        read, what = partial(_reaches, least=spec.at_least), "not a number"
    else:
        read, what = label, "not a class"
    if spec.missing is not None or spec.kind == "number":
        # Before types are counted: numbers with one NA among them are numbers.
        values = [None if _is_missing_label(value, spec) else value for value in values]
        kinds = Kinds()
        kinds.add(values, ids)
    parsed = [read(value) for value in values]
    wrong = [i for i, value in enumerate(values) if parsed[i] is None and not _is_empty(value)]
    if wrong:
        parts = next((value for i in wrong if isinstance(value := values[i], dict)), {})
        # [1, 0, 1, 1], for one, is four flags. It needs the names of the labels.
        flags = spec.kind == "labels" and any(set(map(label, items(values[i], spec))) <= set(SET) for i in wrong)
        hint = (
            f"Write dataset.columns.{role}={' or '.join(f'{name}.{part}' for part in list(parts)[:3])}."
            if parts
            else ""
        )
        if flags:
            hint = "If these are flags, one for each label, name the labels in order: task.labels=[A,B,...]."
        raise UserError(
            listed([Problem(ids[i], f"{name} is {values[i]!r}, {what}", hint=hint) for i in wrong]), "the data"
        )
    if spec.kind in ("label", "labels") and spec.at_least is None and len(kinds.counts) > 1:
        # The rarest type is the mistake: one number among a thousand texts, or one text among numbers.
        row, value = kinds.first[min(kinds.counts, key=lambda kind: kinds.counts[kind])]
        counts = " and ".join(f"{count} of type {kind.__name__}" for kind, count in kinds.counts.most_common())
        raise UserError(Problem(row, f"{name} is {value!r}, unlike the others: {counts}"), "the data")
    return parsed


def _ids(value: Any) -> Any:
    """A whole number, or those in a list, as texts; anything else as it is."""
    if isinstance(value, list):
        return [_ids(part) for part in value]
    return str(value) if type(value) is int else value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str] | None:
    """A list of texts; a single text becomes a list of one."""
    if isinstance(value, str):
        return [value]
    whole = isinstance(value, list) and all(isinstance(text, str) for text in value)
    return value if whole else None


def _words(value: Any, cells: bool) -> list[str] | None:
    """A list of texts, or a text split at spaces; with `cells`, also a list written as text."""
    if isinstance(value, str):
        written = list_in(value) if cells else None
        return written if written and all(isinstance(word, str) for word in written) else value.split()
    whole = isinstance(value, list) and all(isinstance(word, str) for word in value)
    return value if whole else None


def _json(value: Any, spec: Column, dataset: DatasetConfig) -> str | None:
    """Any value as JSON. Keys in `dataset.ignore` are removed from the objects of a list, such as messages."""
    if value is None:
        return None
    parsed = _parse_json(value, spec, dataset.format) if isinstance(value, str) else value
    if dataset.ignore and isinstance(parsed, list):
        parsed = [
            {key: part for key, part in one.items() if key not in dataset.ignore} if isinstance(one, dict) else one
            for one in parsed
        ]
    elif parsed is not value:
        return value  # JSON already: kept as it was written
    try:
        return json.dumps(parsed, ensure_ascii=False)
    except (TypeError, ValueError):
        return None


def _parse_json(cell: str, spec: Column, format: str) -> Any:
    """The value of a cell with JSON, if the role accepts its structure and the format has no lists; else the cell."""
    if cell.lstrip().startswith(("[", "{")) and (spec.structure is None or format in FLAT_FORMATS):
        with suppress(ValueError, RecursionError):
            parsed = json.loads(cell)
            if spec.structure is None or spec.structure(parsed):
                return parsed
    return cell


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value != value  # NaN is not itself


def _reaches(value: Any, least: float) -> str | None:
    """`1` for a number from `least` on, `0` for a smaller one; None for what is not a number."""
    parsed = _number(value)
    return None if parsed is None else str(int(parsed >= least))


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    parsed = number(value)
    return None if math.isnan(parsed) else parsed
