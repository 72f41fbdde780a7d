"""The columns of a table that a model learns from: what each one is, what was learnt of it, and its encoding."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import numpy
from datasets import Dataset

from llmft.data.table import listed
from llmft.schema.problem import Problem, UserError
from llmft.schema.tasks import tabular as schema
from llmft.tasks import dates
from llmft.tasks.cells import constant, counts_rows, is_missing, numbers_of, written
from llmft.tasks.scaling import Scaling, learn, scaled

SHOWN = 6  # names of columns in a note


class Encoded(NamedTuple):
    """What a model sees of the columns of some rows."""

    numbers: numpy.ndarray
    """(rows, N) float64, scaled; missing ones are 0."""
    missing: numpy.ndarray
    """(rows, N) float64, 1 where a number is missing."""
    categories: numpy.ndarray
    """(rows, C) int64, 0 where missing or unseen."""


class DateColumn(TypedDict):
    """What was learnt of a date column."""

    form: str
    """How it is written; see llmft.tasks.dates."""
    days: list[float]
    """The scale of the days."""
    clock: bool
    """Whether its dates have times of day."""


@dataclass
class TableColumns:
    """What was learnt of each column."""

    numbers: dict[str, list[float]] = field(default_factory=dict)
    """Number columns, each with its scale: mean and standard deviation, or quantiles."""
    categories: dict[str, list[str]] = field(default_factory=dict)
    """The values of each category column, the most frequent first."""
    dates: dict[str, DateColumn] = field(default_factory=dict)
    scaling: Scaling = "standard"
    left_out: dict[str, str] = field(default_factory=dict)
    """Columns that say nothing, each with the reason."""

    @property
    def num_numbers(self) -> int:
        """Numbers that a model sees of a row; a date makes several."""
        return len(self.numbers) + sum(7 if date["clock"] else 5 for date in self.dates.values())

    @property
    def category_sizes(self) -> list[int]:
        """Values of each category column."""
        return [len(values) for values in self.categories.values()]

    def check(self, rows: Dataset, split: str) -> list[Problem]:
        """A problem for each column that a split lacks, or for each cell that is not what its column holds."""
        known = rows.features["features"]  # also of no rows
        lacking = [name for name in (*self.numbers, *self.categories, *self.dates) if name not in known]
        if lacking:
            return [Problem(f"dataset.{split}", f"has no column {', '.join(map(repr, lacking))}, which training had")]
        table = rows["features"][:]
        wrong: list[tuple[int, str, str]] = []
        for name in self.numbers:
            cells = [row[name] for row in table]
            faults = numpy.flatnonzero(numpy.isnan(numbers_of(cells))).tolist()
            wrong += [(row, name, "a number") for row in faults if not is_missing(cells[row])]
        for name, date in self.dates.items():
            cells = [row[name] for row in table]
            faults = numpy.flatnonzero(dates.read(cells, date["form"]).isna()).tolist()
            written = f"a date like {dates.shown(date['form'])}"
            wrong += [(row, name, written) for row in faults if not is_missing(cells[row])]
        return listed(
            [
                Problem(rows[row]["id"], f"{name} is {table[row][name]!r}, not {kind} ({split})")
                for row, name, kind in sorted(wrong, key=lambda fault: fault[0])
            ]
        )

    def encode(self, table: list[dict[str, Any]]) -> Encoded:
        """The columns of some rows as a model sees them."""
        numbers = [
            scaled(numbers_of([row[name] for row in table]), scale, self.scaling)
            for name, scale in self.numbers.items()
        ]
        for name, date in self.dates.items():
            found = dates.read([row[name] for row in table], date["form"])
            numbers.append(scaled(dates.days(found), date["days"], self.scaling))
            numbers += dates.cycles(found, date["clock"])
        matrix = numpy.stack(numbers, axis=1) if numbers else numpy.zeros((len(table), 0))
        missing = numpy.isnan(matrix)
        categories = numpy.zeros((len(table), len(self.categories)), dtype=numpy.int64)
        for column, (name, values) in enumerate(self.categories.items()):
            codes = {value: code for code, value in enumerate(values, 1)}  # what is missing is not among them
            categories[:, column] = [codes.get(written(row[name]), 0) for row in table]
        return Encoded(numpy.where(missing, 0.0, matrix), missing.astype(float), categories)

    def notes(self) -> list[str]:
        """What the columns were taken for, to print."""
        kinds = {
            "number": list(self.numbers),
            "category": list(self.categories),
            "date": [f"{name} ({dates.shown(date['form'])})" for name, date in self.dates.items()],
        }
        found = [f"{_count(len(names), kind)}: {_few(names)}" for kind, names in kinds.items() if names]
        notes = [f"columns: {'; '.join(found)}"]
        if self.left_out:
            notes.append(f"left out: {_few([f'{name} ({why})' for name, why in self.left_out.items()])}")
        return notes


def learn_columns(table: list[dict[str, Any]], options: schema.Tabular) -> TableColumns:
    """What there is to learn of the columns of the training rows.

    Raises:
        UserError: for options that name no column, and for a table without a column to learn from.
    """
    problems = [
        Problem(f"task.{key}", f"there is no column {name!r}", hint=f"They are {', '.join(table[0])}.")
        for key in ("numbers", "categories", "dates", "ignore")
        for name in getattr(options, key)
        if name not in table[0]
    ]
    if problems:
        raise UserError(problems)
    found = TableColumns(scaling=options.scaling)
    counting = []
    for name in table[0]:
        cells = [row[name] for row in table]
        why = "task.ignore" if name in options.ignore else None
        if name not in (*options.numbers, *options.categories, *options.dates):
            why = why or constant(cells)
            if why is None and counts_rows(cells):
                counting.append(name)
                why = "it numbers the rows"
        if why is None:
            why = _learn_column(name, [cell for cell in cells if not is_missing(cell)], options, found)
        if why:
            found.left_out[name] = why
    if found.numbers or found.categories or found.dates:
        return found
    if counting:  # a table of little else
        return learn_columns(table, options.model_copy(update={"numbers": [*options.numbers, *counting]}))
    reasons = ", ".join(f"{name} ({why})" for name, why in found.left_out.items())
    raise UserError(Problem("dataset.columns.features", f"no column is left to learn from: {reasons}"), "the data")


def _learn_column(name: str, cells: list[Any], options: schema.Tabular, found: TableColumns) -> str | None:
    """Put a column's cells, those that are missing left out, into `found`; the reason if there is nothing to learn."""
    free = name not in (*options.categories, *options.dates)
    values = numbers_of(cells)
    numeric = ~numpy.isnan(values)
    if name in options.numbers or (free and len(cells) and numeric.all()):
        found.numbers[name] = learn(values[numeric], options.scaling)
        return None
    forced = name in options.dates and len(cells) > 0
    form = dates.form_of(cells) if cells and name not in options.categories else None
    if form is None and forced:
        form = dates.nearest_form(cells)
    if form is not None:
        days = dates.days(dates.read(cells, form))
        days = days[~numpy.isnan(days)]
        found.dates[name] = {"form": form, "days": learn(days, options.scaling), "clock": bool((days % 1).any())}
        return None
    common = [value for value, count in Counter(map(written, cells)).most_common() if count >= options.min_count]
    if not common and name not in options.categories:
        return f"no value stands in {options.min_count} rows"
    found.categories[name] = common
    return None


def _count(number: int, kind: str) -> str:
    plural = {"number": "numbers", "category": "categories", "date": "dates"}
    return f"{number} {kind if number == 1 else plural[kind]}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
