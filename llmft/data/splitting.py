"""Takes splits without a file from train: random shares, folds, or the latest rows. And samples rows of a split.

Rows with equal inputs stay in one split, since otherwise a test row would have been trained on; so do rows of a group.
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

from llmft.data import checks, dates
from llmft.data.cell_values import classes, is_missing, number
from llmft.data.roles import has_part
from llmft.data.source import Table, listed
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig, SplitConfig
from llmft.schema.problem import Problem, UserError

SPLITS = ("train", "validation", "test")
GROUP = "group"
TIME, TIME_TEXT = "time of the row", "time as it is written"
"""Columns that a table has besides its roles until it is split. The names have spaces, which no role has."""

NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")


def take_splits(
    tables: dict[str, Table], config: DatasetConfig, roles: dict[str, Column], drawn: bool
) -> dict[str, Table]:
    """The splits, with those that have no file taken from train: the held-out fold, then shares of the rest.

    Args:
        drawn: whether rows with equal inputs are separate observations, which may be in different splits.

    Raises:
        UserError: if a split would be empty, or there are fewer inputs than folds.
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
    by = config.split.by  # then only the time decides, also between rows with equal inputs
    units = train.ids if by else _units(train, roles, drawn)
    parts = by_time(train.columns[TIME], shares) if by else split(units, labels, shares, config.split.seed)
    kinds = len(set(labels or ()))
    # With about as many labels as rows, no split can have its share of each label. They are numbers, most likely.
    numbers = labels is not None and all(NUMBER.fullmatch(str(label)) for label in labels)
    many = numbers and 2 * kinds > len(train) > 2
    hint = f"It has {kinds} labels. Are they numbers? Write task.problem=regression." if many else ""
    if not hint and len(set(units)) < len(train):
        what = "groups and inputs" if GROUP in train.columns else "inputs"
        hint = f"It has {len(set(units)):,} different {what}; equal ones stay in one split. Name files for the splits."
    empty = [
        Problem(
            f"dataset.split.{name}",
            f"leaves {name} without rows: train has {len(train)}",
            hint=hint or f"Write dataset.{name}=FILE, or add rows to train.",
        )
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
    """The splits, with one fold of train as test, and the others as train."""
    train = tables["train"]
    labels = strata(train.columns.get("label")) if config.split.stratify else None
    units = _units(train, roles, drawn)
    held = rows_of_fold(units, labels, folds, fold, config.split.seed, grouped=GROUP in train.columns)
    rest = sorted(set(range(len(train))) - set(held))
    return {**tables, "train": train.take(rest), "test": train.take(held)}


def _units(train: Table, roles: dict[str, Column], drawn: bool) -> list[str]:
    """A name for each row. Rows with the same name stay in one split."""
    keys = list(map(str, range(len(train)))) if drawn else checks.input_keys(train, roles)
    return connected(keys, train.columns.get(GROUP))


def sample_rows(table: Table, rows: int, how: SplitConfig) -> Table:
    """`rows` random rows, in their order in the table; if stratified, one of each label first, then its share."""
    if len(table) <= rows:
        return table
    order = random.Random(how.seed).sample(range(len(table)), len(table))
    labels = strata(table.columns.get("label")) if how.stratify else None
    if labels:
        # The k-th row of a label with n rows gets the position (k + 0.5) / n, so that every prefix of the order has
        # each label in proportion. The first row of each label comes before all others.
        counts, seen = Counter(labels), Counter[Any]()
        place: dict[int, tuple[bool, float]] = {}
        for row in order:
            rank = seen[labels[row]]
            place[row] = (rank > 0, (rank + 0.5) / counts[labels[row]])
            seen[labels[row]] += 1
        order.sort(key=place.__getitem__)
    return table.take(sorted(order[:rows]))


def sample_shots(table: Table, shots: int, seed: int) -> Table:
    """`shots` random rows of each label, in their order in the table; all of a label that has fewer."""
    labels = strata(table.columns.get("label")) or [""] * len(table)
    seen: Counter[str] = Counter()
    chosen = []
    for row in random.Random(seed).sample(range(len(table)), len(table)):
        seen[labels[row]] += 1
        if seen[labels[row]] <= shots:
            chosen.append(row)
    return table.take(sorted(chosen))


def split(
    keys: Sequence[str], labels: Sequence[str | None] | None, shares: dict[str, float], seed: int
) -> dict[str, list[int]]:
    """Row indices of train and of each share, ascending.

    Args:
        keys: a name for each row; rows with the same name stay in one split.
        labels: if given, each split gets each label's share, as closely as whole groups allow.
        shares: the share of all rows for each split but train.
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
    # Rows that a split has yet to get. The remainder of a stratum goes to the next one: with 100 labels of 4 rows and a
    # share of 0.1, rounding each stratum by itself would give no row at all instead of 40.
    due = dict.fromkeys(shares, 0.0)
    for label in sorted(by_label, key=str):
        stratum = by_label[label]
        rng.shuffle(stratum)
        rows = sum(map(len, stratum))
        for name, share in shares.items():
            due[name] += share * rows
            # A group is taken if at least half of it is due, which brings the split closer to its share. One group of
            # each label stays in train, so that the model learns every label.
            while len(stratum) > 1 and due[name] >= len(stratum[-1]) / 2 and due[name] > 0:
                group = stratum.pop()
                chosen[name] += group
                due[name] -= len(group)
        train += [row for group in stratum for row in group]
    return {"train": sorted(train), **{name: sorted(rows) for name, rows in chosen.items()}}


def strata(labels: Sequence[Any] | None) -> list[str] | None:
    """The stratum of each row: its class, or of several classes the rarest. None if there are no classes.

    The rarest, since a common class is spread evenly by chance.
    """
    cells = [classes(label) for label in labels or ()]
    counts = Counter(name for cell in cells for name in cell)
    if not counts:
        return None
    # Of equally rare classes the first by name, so that the order of labels in a cell changes nothing.
    return [min(cell, key=lambda name: (counts[name], name), default="") for cell in cells]


def rows_of_fold(
    units: Sequence[str], labels: Sequence[str] | None, folds: int, fold: int, seed: int, grouped: bool
) -> list[int]:
    """The row indices of one fold, ascending. Each row is in exactly one of all folds.

    Args:
        units: a name for each row; rows with the same name are in the same fold.
        labels: if given, each label has the same share in all folds, as closely as whole units allow.
        seed: of the shuffle.
        grouped: whether units may have many rows. Folds are then balanced by rows, which takes 20 times as long. If
            only a few inputs repeat, folds with equal numbers of units are balanced well enough.

    Raises:
        UserError: for fewer units than folds, or if every label has fewer rows than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # a service without it reads this file

    rows: dict[str, list[int]] = {}
    for row, unit in enumerate(units):
        rows.setdefault(unit, []).append(row)
    if len(rows) < folds:
        what = f"must be at most {len(rows)}, the number of {'groups' if grouped else 'different inputs'}, got {folds}"
        raise UserError(Problem("dataset.folds", what), "the data")
    same = labels if labels is not None else ["any"] * len(units)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a label with fewer rows than folds is missing in some folds
            if grouped:
                parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(same, same, units)
                return sorted(int(row) for row in list(parts)[fold][1])
            first = [same[members[0]] for members in rows.values()]
            parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(first, first)
            chosen = set(numpy.asarray(list(parts)[fold][1]).tolist())
    except ValueError as error:
        hint = "Write dataset.split.stratify=false."
        what = f"must be at most the rows of the most frequent label to stratify by labels, got {folds}"
        raise UserError(Problem("dataset.folds", what, hint=hint), "the data") from error
    return sorted(row for place, members in enumerate(rows.values()) if place in chosen for row in members)


def with_group(
    config: DatasetConfig, roles: dict[str, Column], table: Table, split: str
) -> tuple[DatasetConfig, dict[str, Column]]:
    """The config and roles for reading a split: the task's, and the role `group` if the config names its column.

    Only train is split, so other splits need not have the column. If they have it, it must not become a feature.
    """
    name = config.columns.get(GROUP)
    if name is None:
        return config, roles
    if split == "train" or (isinstance(name, str) and has_part(table, name)):
        return config, {**roles, GROUP: Column("group", required=False)}
    columns = {role: column for role, column in config.columns.items() if role != GROUP}
    return config.model_copy(update={"columns": columns}), roles


def connected(keys: Sequence[str], groups: Sequence[str | None] | None) -> list[str]:
    """A name for each row. Rows with the same name stay in one split.

    Args:
        keys: `checks.input_keys` of the rows: equal inputs get one name.
        groups: if given, rows of one group get one name too, and so do groups that share an input. None in it is a row
            without a group.
    """
    if groups is None:
        return list(keys)
    # A bipartite graph: inputs and groups are nodes, and each row is an edge between its input and its group. Rows of
    # one connected component stay together.
    _, key = numpy.unique(numpy.asarray(keys, dtype=object), return_inverse=True)
    own = [f"group {group}" if group is not None else f"key {row}" for row, group in zip(key, groups, strict=True)]
    _, group = numpy.unique(numpy.asarray(own, dtype=object), return_inverse=True)
    size = int(key.max()) + 1 + int(group.max()) + 1
    links = coo_matrix((numpy.ones(len(keys)), (key, group + key.max() + 1)), shape=(size, size))
    _, parts = connected_components(links, directed=False)
    return [str(parts[row]) for row in key]


def with_times(roles: Table, table: Table, column: str) -> Table:
    """`roles` with two more columns: the time of each row as a number, or as days since 1970, and its text.

    Args:
        table: the same rows with all columns of the file.
        column: `dataset.split.by`.

    Raises:
        UserError: if the column does not exist, or its cells are neither all numbers nor all dates of one format.
    """
    if column not in table.columns:
        nearest = get_close_matches(column, table.columns, 1)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else f"They are {', '.join(table.columns)}."
        raise UserError(Problem("dataset.split.by", f"train has no column {column!r}", hint=hint), "the data")
    cells = table.columns[column]
    times, what = times_of(cells)
    wrong = [
        Problem(name, f"{column} is {'empty' if is_missing(cell) else repr(cell)}, not {what} (dataset.split.by)")
        for name, cell, time in zip(table.ids, cells, times, strict=True)
        if time != time
    ]
    if wrong:
        raise UserError(listed(wrong), "the data")
    texts = [str(cell) for cell in cells]
    return Table({**roles.columns, TIME: times.tolist(), TIME_TEXT: texts}, roles.ids, roles.left_out)


def times_of(cells: Sequence[Any]) -> tuple[numpy.ndarray, str]:
    """Times as numbers, or as days since 1970, (rows,) float64 with NaN for a cell that has none.

    Returns:
        the times, and what was expected of a cell, for errors.
    """
    known = [cell for cell in cells if not is_missing(cell)]
    values, what = numpy.array([number(cell) for cell in known], dtype=numpy.float64), "a number, as others are"
    if known and numpy.isnan(values).all():  # not a single number: then dates
        form = dates.form_of(known) or dates.nearest_form(known)
        values, what = dates.days(dates.read(known, form)), f"a date like {dates.readable_format(form)}"
    times = numpy.full(len(cells), numpy.nan)
    times[[row for row, cell in enumerate(cells) if not is_missing(cell)]] = values
    return times, what


def by_time(times: Sequence[float], shares: dict[str, float]) -> dict[str, list[int]]:
    """Row indices of train and of each share, ascending. Rows of the same time stay in one split.

    Args:
        times: a number for each row.
        shares: the share of all rows for each split but train. The last of them gets the latest rows.
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
        # From the latest time backwards. Each split gets at least one time, and train keeps the earliest one. As in
        # `split`, a time is taken if at least half of its rows are due.
        while len(left) > 1 and (due >= len(left[-1]) / 2 or not chosen[name]):
            due -= len(left[-1])
            chosen[name] += left.pop()
    train = sorted(row for group in left for row in group)
    return {"train": train, **{name: sorted(chosen[name]) for name in shares}}


def time_note(parts: dict[str, Table], column: str) -> str:
    """A note with the first and last time of each split."""
    spans = []
    for name, table in parts.items():
        order = sorted(range(len(table)), key=table.columns[TIME].__getitem__)
        first, last = (table.columns[TIME_TEXT][row] for row in (order[0], order[-1]))
        spans.append(f"{name} {first}" + (f" to {last}" if first != last else ""))
    return f"split by {column}: {', '.join(spans)}"
