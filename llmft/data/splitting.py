"""Splits that have no file of their own, taken from train: shares, folds, the latest rows. And samples of a split.

Rows that belong together stay on one side: rows of equal inputs, since a split would leak them, and rows of one group.
"""

import random
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from llmft.data import checks, dates
from llmft.data.cell_values import classes, is_missing, number
from llmft.data.roles import has_part
from llmft.data.source import Table, listed
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig, SplitConfig
from llmft.schema.problem import Problem, UserError

SPLITS = ("train", "validation", "test")
GROUP = "group"
TIME, SAID = "time of the row", "time as it is written"
"""The columns that a table has, beside its roles, until it is split."""

NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")


def take_splits(
    tables: dict[str, Table], config: DatasetConfig, roles: dict[str, Column], drawn: bool
) -> dict[str, Table]:
    """Take what has no file of its own from train: the fold that is held out, and shares of the rest.

    Args:
        drawn: rows of equal inputs may be parted.
    """
    if config.folds and config.fold is not None and "train" in tables:
        tables = hold_out_fold(tables, config, roles, config.folds, config.fold, drawn)
    shares = {
        name: getattr(config.split, name) for name in SPLITS[1:] if name not in tables and getattr(config.split, name)
    }
    if "train" not in tables or not shares:
        return tables
    train = tables["train"]
    labels = strata(train.columns.get("label")) if config.split.stratify else None
    by = config.split.by  # then the time alone decides, also between rows of equal inputs
    units = train.ids if by else _units(train, roles, drawn)
    parts = by_time(train.columns[TIME], shares) if by else split(units, labels, shares, config.split.seed)
    kinds = len(set(labels or ()))
    # As many labels as rows: numbers, or names. No share can have its part of each.
    numbers = labels is not None and all(NUMBER.fullmatch(str(label)) for label in labels)
    many = numbers and 2 * kinds > len(train) > 2
    hint = f"It has {kinds} labels. Are they numbers? Write task.problem=regression." if many else ""
    if not hint and len(set(units)) < len(train):
        what = "groups and inputs" if GROUP in train.columns else "inputs"
        hint = f"It has {len(set(units)):,} different {what}; equal ones stay in one split. Name files for the splits."
    empty = [
        Problem(f"dataset.split.{name}", f"leaves {name} without rows: train has {len(train)}", hint=hint)
        for name, rows in parts.items()
        if not rows
    ]
    if empty:
        raise UserError(empty, "the data")
    found = {**tables, **{name: train.take(rows) for name, rows in parts.items()}}
    return {name: found[name] for name in SPLITS if name in found}


def hold_out_fold(
    tables: dict[str, Table], config: DatasetConfig, roles: dict[str, Column], folds: int, fold: int, drawn: bool
) -> dict[str, Table]:
    """One fold of train as test, the others as train."""
    train = tables["train"]
    labels = strata(train.columns.get("label")) if config.split.stratify else None
    units = _units(train, roles, drawn)
    held = held_out(units, labels, folds, fold, config.split.seed, grouped=GROUP in train.columns)
    rest = sorted(set(range(len(train))) - set(held))
    return {**tables, "train": train.take(rest), "test": train.take(held)}


def _units(train: Table, roles: dict[str, Column], drawn: bool) -> list[str]:
    """A name for each row; rows of the same name are never parted."""
    keys = list(map(str, range(len(train)))) if drawn else checks.input_keys(train, roles)
    return together(keys, train.columns.get(GROUP))


def sample_rows(table: Table, rows: int, how: SplitConfig) -> Table:
    """`rows` rows at random; if stratified, one of each label first, then each label's share."""
    if len(table) <= rows:
        return table
    order = random.Random(how.seed).sample(range(len(table)), len(table))
    labels = strata(table.columns.get("label")) if how.stratify else None
    if labels:
        counts, seen = Counter(labels), Counter[Any]()
        place: dict[int, tuple[bool, float]] = {}
        for row in order:
            rank = seen[labels[row]]
            place[row] = (rank > 0, (rank + 0.5) / counts[labels[row]])
            seen[labels[row]] += 1
        order.sort(key=place.__getitem__)
    return table.take(sorted(order[:rows]))


def split(
    keys: Sequence[str], labels: Sequence[str | None] | None, shares: dict[str, float], seed: int
) -> dict[str, list[int]]:
    """Row numbers of `train` and of each share, in their first order.

    Args:
        keys: what the model sees of each row; rows of the same key are never parted, so a split leaks nothing.
        labels: where given, each label's share is kept as near as whole rows allow.
        shares: the part of all rows for each split but `train`.
        seed: of the shuffle.
    """
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    by_label: dict[str | None, list[list[int]]] = {}
    for group in groups.values():
        by_label.setdefault(labels[group[0]] if labels else None, []).append(group)
    rng = random.Random(seed)
    chosen: dict[str, list[int]] = {name: [] for name in shares}
    train: list[int] = []
    due = dict.fromkeys(shares, 0.0)  # carried from stratum to stratum, so that many small ones round to the right sum
    for label in sorted(by_label, key=str):
        stratum = by_label[label]
        rng.shuffle(stratum)
        rows = sum(map(len, stratum))
        for name, share in shares.items():
            due[name] += share * rows
            # Half of a group is enough: it then brings the share nearer. One group of each label stays in train.
            while len(stratum) > 1 and due[name] >= len(stratum[-1]) / 2 and due[name] > 0:
                group = stratum.pop()
                chosen[name] += group
                due[name] -= len(group)
        train += [row for group in stratum for row in group]
    return {"train": sorted(train), **{name: sorted(rows) for name, rows in chosen.items()}}


def strata(labels: Sequence[Any] | None) -> list[str] | None:
    """The stratum of each row: its class, or of several the one that fewest rows have. None: there are no classes."""
    cells = [classes(label) for label in labels or ()]
    counts = Counter(name for cell in cells for name in cell)
    if not counts:
        return None
    return [min(cell, key=lambda name: (counts[name], name), default="") for cell in cells]


def held_out(
    units: Sequence[str], labels: Sequence[str] | None, folds: int, fold: int, seed: int, grouped: bool
) -> list[int]:
    """The rows of one fold, in their first order. All folds together hold each row once.

    Args:
        units: a name for each row; rows of the same name are in the same fold.
        labels: where given, each label's share is the same in all folds, as near as whole units allow.
        seed: of the shuffle.
        grouped: whether many rows may share a unit. Their folds are made of equal size row by row, which takes
            20 times as long; where only a few inputs repeat, those of equal numbers of units do.

    Raises:
        UserError: for fewer units than folds, or fewer rows of every label.
    """
    rows: dict[str, list[int]] = {}
    for row, unit in enumerate(units):
        rows.setdefault(unit, []).append(row)
    if len(rows) < folds:
        what = f"{folds} folds cannot be made of {len(rows)} {'groups' if grouped else 'different inputs'}"
        raise UserError(Problem("dataset.folds", what), "the data")
    same = labels if labels is not None else ["any"] * len(units)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a label of fewer rows than folds lacks in some of them
            if grouped:
                # Groups differ in size, so folds are balanced by rows.
                parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(same, same, units)
                return sorted(int(row) for row in list(parts)[fold][1])
            first = [same[members[0]] for members in rows.values()]
            parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(first, first)
            chosen = set(numpy.asarray(list(parts)[fold][1]).tolist())
    except ValueError as error:
        hint = "Write dataset.split.stratify=false."
        raise UserError(Problem("dataset.folds", f"no label has {folds} rows", hint=hint), "the data") from error
    return sorted(row for place, members in enumerate(rows.values()) if place in chosen for row in members)


def with_group(
    config: DatasetConfig, roles: dict[str, Column], table: Table, split: str
) -> tuple[DatasetConfig, dict[str, Column]]:
    """The section and the roles to read a split by: those of the task, and the group where one is named.

    Rows are taken from train alone, so that other splits may lack the column. Where they have it, it is not a feature.
    """
    name = config.columns.get(GROUP)
    if name is None:
        return config, roles
    if split == "train" or (isinstance(name, str) and has_part(table, name)):
        return config, {**roles, GROUP: Column("group", required=False)}
    columns = {role: column for role, column in config.columns.items() if role != GROUP}
    return config.model_copy(update={"columns": columns}), roles


def together(keys: Sequence[str], groups: Sequence[str | None] | None) -> list[str]:
    """A name for each row; rows of the same name are never parted.

    Args:
        keys: what the model sees of each row: equal inputs belong together.
        groups: where given, rows of one group do too, and so do groups that share an input.
    """
    if groups is None:
        return list(keys)
    # Inputs and groups are the two sides of a graph, and rows its edges: what hangs together is never parted.
    _, key = numpy.unique(numpy.asarray(keys, dtype=object), return_inverse=True)
    own = [f"group {group}" if group is not None else f"key {row}" for row, group in zip(key, groups, strict=True)]
    _, group = numpy.unique(numpy.asarray(own, dtype=object), return_inverse=True)
    size = int(key.max()) + 1 + int(group.max()) + 1
    links = coo_matrix((numpy.ones(len(keys)), (key, group + key.max() + 1)), shape=(size, size))
    _, parts = connected_components(links, directed=False)
    return [str(parts[row]) for row in key]


def with_times(roles: Table, table: Table, column: str) -> Table:
    """`roles`, with the time of each row of `table`: a number, or the days since 1970.

    Raises:
        UserError: for a column that is not there, and for cells that are neither all numbers nor all dates of one form.
    """
    if column not in table.columns:
        nearest = get_close_matches(column, table.columns, 1)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else f"They are {', '.join(table.columns)}."
        raise UserError(Problem("dataset.split.by", f"train has no column {column!r}", hint=hint), "the data")
    cells = table.columns[column]
    known = [cell for cell in cells if not is_missing(cell)]
    values = numpy.array([number(cell) for cell in known])
    what = "a number, as others are"
    if known and numpy.isnan(values).all():
        form = dates.form_of(known) or dates.nearest_form(known)
        values, what = dates.days(dates.read(known, form)), f"a date like {dates.shown(form)}"
    found = iter(values)
    times = [numpy.nan if is_missing(cell) else float(next(found)) for cell in cells]
    wrong = [
        Problem(name, f"{column} is {'empty' if is_missing(cell) else repr(cell)}, not {what} (dataset.split.by)")
        for name, cell, time in zip(table.ids, cells, times, strict=True)
        if time != time
    ]
    if wrong:
        raise UserError(listed(wrong), "the data")
    said = [str(cell) for cell in cells]
    return Table({**roles.columns, TIME: times, SAID: said}, roles.ids, roles.left_out)


def by_time(times: Sequence[float], shares: dict[str, float]) -> dict[str, list[int]]:
    """Row numbers of `train` and of each share, in their first order; rows of the same time are never parted.

    Args:
        shares: the part of all rows for each split but `train`; the last of them gets the latest rows.
    """
    rows: dict[float, list[int]] = {}
    for row, time in enumerate(times):
        rows.setdefault(time, []).append(row)
    left = [rows[time] for time in sorted(rows)]
    chosen: dict[str, list[int]] = {}
    due = 0.0
    for name, share in reversed(shares.items()):
        due += share * len(times)
        chosen[name] = []
        # From the latest time backwards. A split gets at least one time, and train keeps the earliest.
        while len(left) > 1 and (due >= len(left[-1]) / 2 or not chosen[name]):
            due -= len(left[-1])
            chosen[name] += left.pop()
    train = sorted(row for group in left for row in group)
    return {"train": train, **{name: sorted(chosen[name]) for name in shares}}


def note_of(parts: dict[str, Table], column: str) -> str:
    """From when to when each split is."""
    spans = []
    for name, table in parts.items():
        order = sorted(range(len(table)), key=table.columns[TIME].__getitem__)
        first, last = (table.columns[SAID][row] for row in (order[0], order[-1]))
        spans.append(f"{name} {first}" + (f" to {last}" if first != last else ""))
    return f"split by {column}: {', '.join(spans)}"
