"""The columns of rows that are clicked or not: those of a table, ids, and what the user has clicked before."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy

from llmft.data import dates
from llmft.data.cell_values import category, text_of
from llmft.data.checks import few
from llmft.data.source import Rows, listed
from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.tables import config as sections
from llmft.tasks.tables.columns import Encoded, TableColumns, learn_columns
from llmft.tasks.tables.id_columns import (
    BUCKETS,
    MOST,
    PADDING,
    UNKNOWN,
    Counts,
    IdColumn,
    separator_of,
    split,
    stable_hash,
)
from llmft.tasks.tables.number_columns import numbers_of

if TYPE_CHECKING:
    from datasets import Dataset

Parts = Iterator[tuple[list[dict[str, Any]], list[str]]]
"""Rows of train, a part at a time: their cells, and their labels."""
NAMED_ID = re.compile(r"(?:^|[^a-z])u?id$")  # of a name in lower case
CAMEL_ID = re.compile(r"[a-z]I[dD]$")
EMPTY = (None, "")
IDS = 100  # different whole numbers, from which a column of numbers may be one of ids
FREQUENT = 100  # values of a column that a service counts by name
BEFORE = "clicked before"
"""The history that is built of the training rows, among the columns."""


@dataclass
class ClickLog:
    """The clicks of the training rows by user and time: what a user has clicked before a row."""

    users: numpy.ndarray
    """(U,) uint64: the hashes of the users, ascending. Hashes and not names: a million users take 8 MB."""
    starts: numpy.ndarray
    """(U + 1,) int64: where the clicks of each user begin."""
    times: numpy.ndarray
    """(clicks,) float64, ascending for each user; float32 would make one of the seconds of two minutes."""
    items: numpy.ndarray
    """(clicks,) int64: ids."""

    @classmethod
    def of(cls, users: Sequence[str | None], times: numpy.ndarray, items: Sequence[int]) -> "ClickLog":
        """The log of some clicks. Those without a user, a time, or an item are left out.

        Args:
            users: (clicks,).
            times: (clicks,) float64.
            items: (clicks,) ids.
        """
        hashes, known = user_hashes(users), numpy.array([bool(user) for user in users], dtype=bool)
        ids = numpy.asarray(items, dtype=numpy.int64)
        kept = known & ~numpy.isnan(times) & (ids != PADDING)
        hashes, times, ids = hashes[kept], times[kept], ids[kept]
        # Stable: clicks of one time stay in the order of the file.
        order = numpy.lexsort((times, hashes))
        names, starts = numpy.unique(hashes[order], return_index=True)
        return cls(names, numpy.append(starts, len(order)).astype(numpy.int64), times[order], ids[order])

    def before(self, users: Sequence[str | None], times: numpy.ndarray, width: int) -> numpy.ndarray:
        """(rows, width) int64: the latest items that the user clicked at an earlier time, the latest first.

        Strictly earlier, so that a row never has its own click, nor those of the same moment. NaN is the present: all
        clicks are earlier.
        """
        found = numpy.zeros((len(users), width), dtype=numpy.int64)
        if not len(self.users):
            return found
        hashes = user_hashes(users)
        places = numpy.minimum(numpy.searchsorted(self.users, hashes), len(self.users) - 1)
        known = (self.users[places] == hashes) & numpy.array([bool(user) for user in users], dtype=bool)
        times = numpy.where(numpy.isnan(times), numpy.inf, times)
        for row in numpy.flatnonzero(known).tolist():
            start, stop = self.starts[places[row]], self.starts[places[row] + 1]
            end = start + numpy.searchsorted(self.times[start:stop], times[row], side="left")
            latest = self.items[max(start, end - width) : end][::-1]
            found[row, : len(latest)] = latest
        return found

    @property
    def ties(self) -> int:
        """How many clicks have the time of an earlier click of their user."""
        same = numpy.diff(self.times) == 0
        first = numpy.zeros(len(self.times), dtype=bool)
        first[self.starts[:-1]] = True
        return int((same & ~first[1:]).sum()) if len(self.times) else 0


def user_hashes(users: Iterable[str | None]) -> numpy.ndarray:
    """(rows,) uint64."""
    return numpy.array([stable_hash(user or "") for user in users], dtype=numpy.uint64)


@dataclass
class ClickColumns(TableColumns):
    """What was learned from each column. Categories are ids here."""

    ids: dict[str, IdColumn] = field(default_factory=dict)
    """Columns of one id, then those of lists, then the history."""
    user: str = ""
    item: str = ""
    time: str = ""
    time_form: str = ""
    """The format of the dates in `time`; empty for numbers."""
    history: str = ""
    """The column of `ids` with the history: one of the file, or BEFORE."""
    log: ClickLog | None = None
    """The clicks of train, if the history is built from them."""

    @property
    def names(self) -> list[str]:
        """The columns that are read, `time` among them if it decides the history."""
        own = [name for name in self.ids if name != BEFORE]
        return [*super().names, *own, *([self.time] if self.log is not None else [])]

    def id_cells(self, table: list[dict[str, Any]], name: str) -> list[Any]:
        """A column of ids. `NA` and `null` are ids; only an empty cell is missing, or a mark of `task.missing`."""
        cells = [row.get(name) for row in table]
        return [None if category(cell) in self.missing else cell for cell in cells] if self.missing else cells

    def users_of(self, table: list[dict[str, Any]]) -> list[str | None]:
        """The user of each row."""
        return list(map(category, self.id_cells(table, self.user)))

    def times_of(self, table: list[dict[str, Any]]) -> numpy.ndarray:
        """The time of each row as a number, or in days since 1970, (rows,) float64; NaN where there is none."""
        cells = self.cells(table, self.time)
        if not self.time_form:
            return numbers_of(cells)
        return dates.days(dates.read_or_iso(cells, self.time_form))

    def encode_ids(self, table: list[dict[str, Any]], name: str) -> numpy.ndarray:
        """The ids of a column, (rows, width) int64."""
        column = self.ids[name]
        if name == BEFORE:
            assert self.log is not None
            return self.log.before(self.users_of(table), self.times_of(table), column.width)
        return column.encode(self.id_cells(table, name), self.ids.get(column.shares))

    def encode(self, table: list[dict[str, Any]]) -> Encoded:
        """Encode some rows; columns that they lack are missing values."""
        encoded = super().encode(table)
        parts = [self.encode_ids(table, name) for name in self.ids]
        empty = numpy.zeros((len(table), 0), dtype=numpy.int64)
        return encoded._replace(categories=numpy.concatenate([empty, *parts], axis=1))

    def model_kwargs(self) -> dict[str, Any]:
        """The fields of a model for clicks; see models/click_models.py."""
        places = {name: place for place, name in enumerate(self.ids)}
        return {
            "num_numbers": self.num_numbers,
            "field_sizes": [0 if column.shares else column.size for column in self.ids.values()],
            "field_widths": [column.width for column in self.ids.values()],
            "field_shares": [places[column.shares or name] for name, column in self.ids.items()],
            "num_single": sum(not self._is_list(name) for name in self.ids),
            "history_field": places.get(self.history),
        }

    def _is_list(self, name: str) -> bool:
        return bool(self.ids[name].separator) or name == BEFORE

    def positions(self) -> dict[str, dict[str, list[int]]]:
        found, start = super().positions(), 0
        for name, column in self.ids.items():
            found[name] = {"categories": list(range(start, start + column.width))}
            start += column.width
        return found

    def check(self, rows: Rows, split: str, lenient: bool = False) -> list[Problem]:
        """As for any table; and a problem for each row without a time that can be compared."""
        problems = super().check(rows, split, lenient)
        if problems or self.log is None:
            return problems
        table = rows["features"][:]
        cells, times = self.cells(table, self.time), self.times_of(table)
        kind = f"a date like {dates.readable_format(self.time_form)}" if self.time_form else "a number"
        wrong = [row for row in numpy.flatnonzero(numpy.isnan(times)).tolist() if not lenient or cells[row] is not None]
        hint = f"task.time={self.time} decides what the user clicked before: it needs a number or a date in every row."
        return listed(
            [
                Problem(
                    rows["id"][row], f"{self.time} is {table[row].get(self.time)!r}, not {kind} ({split})", hint=hint
                )
                for row in wrong
            ]
        )

    def example_row(self) -> dict[str, Any]:
        # An invented time would be a moment of training: without one, all clicks count.
        own = {name: column.values[0] if column.values else "a" for name, column in self.ids.items() if name != BEFORE}
        return super().example_row() | own

    def typical_cells(self) -> dict[str, list[Any]]:
        found = super().typical_cells()
        own = [name for name in self.ids if name != BEFORE]
        few = len(found) + len(own) <= 33
        return found | {name: self._typical(name)[: 3 if few else 1] for name in own}

    def _typical(self, name: str) -> list[Any]:
        """Frequent values; a list is empty."""
        return [None] if self._is_list(name) else list[Any](self.ids[name].values[:3]) or [None]

    def plain_row(self, row: dict[str, Any]) -> dict[str, Any]:
        own = [name for name in self.ids if name != BEFORE] + ([self.time] if self.log is not None else [])
        return super().plain_row(row) | {name: text_of(row.get(name)) for name in own}

    def measurements(self, table: list[dict[str, Any]]) -> dict[str, list[float | str | None]]:
        """As for any table; of ids the frequent values, or `other` and `new`; of lists how many ids are read."""
        found = super().measurements(table)
        for name, column in self.ids.items():
            if self._is_list(name):
                found[name] = (self.encode_ids(table, name) != PADDING).sum(axis=1).astype(float).tolist()
            elif not column.buckets:
                names = {PADDING: None, UNKNOWN: "new"} | dict(enumerate(column.values[:FREQUENT], 2))
                found[name] = [names.get(number, "other") for number in self.encode_ids(table, name)[:, 0].tolist()]
        return found

    def notes_of_rows(self, rows: "Dataset", split: str) -> list[str]:
        """As for any table; and columns of ids whose values are mostly unknown."""
        notes, table, new = super().notes_of_rows(rows, split), rows["features"][:], []
        for name, column in self.ids.items():
            codes = self.encode_ids(table, name) if not column.buckets else numpy.zeros((0, 1))
            there, unknown = int((codes != PADDING).sum()), int((codes == UNKNOWN).sum())
            if 2 * unknown > there:
                new.append(f"{name} ({unknown:,} of {there:,})")
        return notes + ([f"{split}: values that are mostly unknown: {few(new)}"] if new else [])

    def kinds(self) -> dict[str, list[str]]:
        lists = [name for name in self.ids if self._is_list(name) and name != self.history]
        single = [name for name in self.ids if not self._is_list(name)]
        history = [self.history] if self.history else []
        shown = {
            name: f"{name} ({column.buckets:,} buckets)" if column.buckets else f"{name} ({len(column.values):,})"
            for name, column in self.ids.items()
        }
        own = {"id": [shown[name] for name in single], "list": [shown[name] for name in lists]}
        return super().kinds() | own | {"history": [f"{name} (of {self.ids[name].width})" for name in history]}

    def learn_ids(self, parts: Callable[[], Parts], options: sections.Ctr) -> None:
        """Learn vocabularies, widths, and the log from all training rows, in one pass, or two with a log.

        Args:
            parts: gives the rows anew with every call.
        """
        owners = {name: column.shares or name for name, column in self.ids.items() if name != BEFORE}
        counts = {name: Counts() for name, column in self.ids.items() if not (column.shares or column.buckets)}
        longest = dict.fromkeys(self.ids, 1)
        cut = dict.fromkeys(self.ids, 0)
        for table, _ in parts():
            for name, owner in owners.items():
                column, cells = self.ids[name], self.id_cells(table, name)
                limit = options.max_history if column.latest else options.max_list
                if column.separator:
                    rows = [[v for v in split(cell, column.separator) if v not in EMPTY] for cell in cells]
                    longest[name] = max([longest[name], *map(len, rows)])
                    cut[name] += sum(len(row) > limit for row in rows)
                    cells = [value for row in rows for value in dict.fromkeys(row)]
                if owner in counts:
                    counts[owner].add(cells)
        for name, column in list(self.ids.items()):
            if column.separator:
                limit, key = (options.max_history, "max_history") if column.latest else (options.max_list, "max_list")
                column.width = min(longest[name], limit)
                if cut[name]:
                    which = "the latest" if column.latest else "the first"
                    what = f"{plural(cut[name], 'rows have')} more than {limit} values of {name}"
                    self.remarks.append(f"train: {what}, of which {which} are read (task.{key})")
            if name in counts and counts[name].many:
                column.buckets = BUCKETS
                what = f"{name} has more than {MOST:,} values: they are hashed into {BUCKETS:,} buckets"
                self.remarks.append(f"{what} (task.hash_buckets={{{name}: BUCKETS}})")
            elif name in counts:
                column.values = counts[name].kept(options.min_count)
                named = (self.user, self.item, *options.categories, *options.lists)
                if not column.values and name not in named:
                    self.left_out[name] = f"no value stands in {options.min_count} rows"
                    del self.ids[name]
        if self.history == BEFORE:
            self.ids[BEFORE].width = options.max_history
            self._learn_log(parts(), options.labels[1])

    def _learn_log(self, parts: Parts, click: str) -> None:
        users: list[str | None] = []
        items: list[int] = []
        times = [numpy.zeros(0)]
        for table, labels in parts:
            clicked = [row for row, label in zip(table, labels, strict=True) if label == click]
            users += self.users_of(clicked)
            items += self.encode_ids(clicked, self.item)[:, 0].tolist()
            times.append(self.times_of(clicked))
        self.log = ClickLog.of(users, numpy.concatenate(times), items)
        if ties := self.log.ties:
            what = f"{ties:,} of {len(self.log.times):,} clicks have the time of another click of their user"
            self.remarks.append(f"train: {what}: neither is in the history of the other")


def learn_clicks(table: list[dict[str, Any]], options: sections.Ctr) -> ClickColumns:
    """The kind of each column; `ClickColumns.learn_ids` then learns the vocabularies.

    Raises:
        UserError: for options that name no column, a time that is none, and if no column is left.
    """
    single = [name for name in (options.user, options.item) if name is not None]
    lists = [*options.lists, *([options.history] if options.history else [])]
    named = {
        "lists": options.lists,
        "hash_buckets": options.hash_buckets,
        **{key: [name] for key in ("user", "item", "time", "history") if (name := getattr(options, key)) is not None},
    }
    _must_exist(named, table[0])
    called = [name for name in table[0] if NAMED_ID.search(name.lower()) or CAMEL_ID.search(name)]
    set_kinds = [*options.numbers, *options.categories, *options.dates, *options.texts, *options.ignore, *lists]
    called = [name for name in called if name not in (*set_kinds, *single, *options.hash_buckets, options.time)]
    apart = [*lists, *options.hash_buckets, *([options.time] if options.time else [])]
    apart = [name for name in dict.fromkeys(apart) if name not in options.ignore]
    forced = [
        name for name in dict.fromkeys([*options.categories, *single, *called]) if name not in (*apart, *options.ignore)
    ]
    plain = options.model_copy(update={"ignore": [*options.ignore, *apart], "categories": forced})
    base = learn_columns(table, plain, all_columns=False)
    found = ClickColumns(**{part.name: getattr(base, part.name) for part in fields(TableColumns)})
    found.left_out = {name: why for name, why in base.left_out.items() if name not in apart}
    found.user, found.item, found.time = (getattr(options, key) or "" for key in ("user", "item", "time"))
    buckets = {name: count for name, count in options.hash_buckets.items() if name not in options.ignore}
    for name in table[0]:
        if name in base.categories or (name in buckets and name not in lists):
            found.ids[name] = IdColumn(buckets=buckets.get(name, 0))
    found.categories = {}
    for name in (column for column in options.lists if column not in options.ignore):
        found.ids[name] = IdColumn(buckets=buckets.get(name, 0), separator=_separator(table, name, options))
    if options.history:
        found.history = options.history
        separator = _separator(table, options.history, options)
        found.ids[options.history] = IdColumn(separator=separator, shares=found.item, latest=True)
    elif options.builds_history:
        found.history, found.time_form = BEFORE, _time_form(found, table)
        found.ids[BEFORE] = IdColumn(shares=found.item, latest=True)
        found.log = ClickLog.of([], numpy.zeros(0), [])
    found.remarks += _id_remarks(found, table, called, options)
    if not found.names:
        reasons = ", ".join(f"{name} ({why})" for name, why in found.left_out.items())
        raise UserError(Problem("dataset.columns.features", f"no column is left to learn from: {reasons}"), "the data")
    return found


def _must_exist(named: Mapping[str, Iterable[str]], row: dict[str, Any]) -> None:
    problems = [
        Problem(f"task.{key}", f"there is no column {name!r}", hint=f"They are {', '.join(row)}.")
        for key, names in named.items()
        for name in names
        if name not in row
    ]
    if problems:
        raise UserError(problems, "the data")


def _separator(table: list[dict[str, Any]], name: str, options: sections.Ctr) -> str:
    return options.list_separator or separator_of(row.get(name) for row in table)


def _time_form(found: ClickColumns, table: list[dict[str, Any]]) -> str:
    """The format of the times: empty for numbers.

    Raises:
        UserError: if they are neither numbers nor dates.
    """
    cells = [cell for cell in found.cells(table, found.time) if cell is not None]
    numbers = ~numpy.isnan(numbers_of(cells))
    if len(cells) and 2 * numbers.sum() >= len(cells):  # `check` names the others by row
        return ""
    form = dates.form_of(cells) or dates.nearest_form(cells) if cells else None
    if form is not None and 2 * int(dates.read(cells, form).notna().sum()) >= len(cells):
        return form
    what = (
        f"{found.time!r} must have numbers or dates, got {cells[0]!r}" if cells else f"{found.time!r} is always empty"
    )
    hint = "Name a column with the time of each row, or leave out task.time: rows then have no history."
    raise UserError(Problem("task.time", what, hint=hint), "the data")


def _id_remarks(
    found: ClickColumns, table: list[dict[str, Any]], called: Sequence[str], options: sections.Ctr
) -> list[str]:
    """Columns of numbers that are read as ids by their name, and those that may be ids."""
    notes = []
    by_name = [
        name
        for name in called
        if name in found.ids
        and not numpy.isnan(numbers_of([c for c in found.cells(table, name) if c is not None])).any()
    ]
    if by_name:
        names = ", ".join(by_name)
        notes.append(f"read as ids by their names, not as numbers: {names} (task.numbers=[{','.join(by_name)}] if not)")
    for name in found.numbers:
        if name in options.numbers:
            continue
        values = found.numbers_in(table, name)
        values = values[~numpy.isnan(values)]
        if _may_be_ids(values):
            count = f"{len(numpy.unique(values)):,} different whole numbers"
            words = f"task.categories=[{','.join([*options.categories, name])}]"
            notes.append(f"{name} is read as numbers, of which there are {count}; if they are ids, write {words}")
    return notes


def _may_be_ids(values: numpy.ndarray) -> bool:
    """Whether numbers are whole, and spread as ids are. The median of counts is far below the largest of them."""
    if not len(values) or (values < 0).any() or (values % 1 != 0).any():
        return False
    return len(numpy.unique(values)) >= IDS and bool(numpy.median(values) > values.max() / 20)
