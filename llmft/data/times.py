"""A split by time: the latest rows are test, those before them validation, the earliest train. `dataset.split.by`."""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy

from llmft.data import dates
from llmft.data.cells import is_missing, number
from llmft.data.table import Table, listed
from llmft.schema.problem import Problem, UserError

TIME, SAID = "time of the row", "time as it is written"
"""The columns that a table has, beside its roles, until it is split."""


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
