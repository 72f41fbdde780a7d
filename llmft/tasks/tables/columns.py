"""The columns of a table that a model learns from: what each one is, what was learnt of it, and its encoding."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy
import pandas

from llmft.data import dates
from llmft.data.cell_values import category, is_missing, parts_of, text_of
from llmft.data.source import listed
from llmft.schema.problem import Problem, UserError
from llmft.tasks.tables import config as sections
from llmft.tasks.tables.number_columns import (
    FLAG,
    MOSTLY,
    PLAIN_FORM,
    NumberForm,
    Scaling,
    bin_edges,
    constant,
    counts_rows,
    form_of,
    learn_scale,
    numbers_of,
    orders_rows,
    scaled,
    shown,
)
from llmft.tasks.tables.text_columns import TextColumn, learn_texts, looks_like_text

if TYPE_CHECKING:
    from datasets import Dataset

SHOWN = 6  # names of columns in a note
SAMPLE = 200  # cells among which a form of dates is looked for: each of the 30 forms takes a millisecond for so many


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
    """How it is written; see llmft.data.dates."""
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
    texts: dict[str, TextColumn] = field(default_factory=dict)
    scaling: Scaling = "standard"
    left_out: dict[str, str] = field(default_factory=dict)
    """Columns that say nothing, each with the reason."""
    forms: dict[str, NumberForm] = field(default_factory=dict)
    """How numbers are written in the columns where that is not with digits and a point alone."""
    missing: list[str] = field(default_factory=list)
    """Texts that stand for no value in this table, as `llmft.data.cell_values.category` writes them."""
    bin_edges: list[list[float]] = field(default_factory=list)
    """By number that a model sees, those of its piecewise-linear encoding; none without `task.bins`."""
    remarks: list[str] = field(default_factory=list)
    """What looks odd about columns, for `notes`."""

    @property
    def num_numbers(self) -> int:
        """Numbers that a model sees of a row; a date and a text make several."""
        return sum(self._widths().values())

    def _widths(self) -> dict[str, int]:
        """How many numbers each column makes, in the order in which they stand in `Encoded`."""
        widths = dict.fromkeys(self.numbers, 1)
        widths |= {name: 7 if date["clock"] else 5 for name, date in self.dates.items()}
        return widths | {name: text.width for name, text in self.texts.items()}

    @property
    def category_sizes(self) -> list[int]:
        """Values of each category column."""
        return [len(values) for values in self.categories.values()]

    def places(self) -> dict[str, dict[str, list[int]]]:
        """Where each column stands in `Encoded`, by its parts."""
        found: dict[str, dict[str, list[int]]] = {}
        start = 0
        for name, width in self._widths().items():
            own = list(range(start, start + width))
            found[name] = {"numbers": own, "missing": own}
            start += width
        return found | {name: {"categories": [column]} for column, name in enumerate(self.categories)}

    def cells(self, table: list[dict[str, Any]], name: str) -> list[Any]:
        """A column, None for what is missing; all of it where the table has no such column."""
        found = (row.get(name) for row in table)
        return [None if is_missing(cell, self.missing) else cell for cell in found]

    def numbers_in(self, table: list[dict[str, Any]], name: str) -> numpy.ndarray:
        """A number column as float64 (rows,), NaN for what is not a number."""
        return numbers_of(self.cells(table, name), self.forms.get(name, PLAIN_FORM))

    def codes_in(self, table: list[dict[str, Any]], name: str) -> list[int]:
        """A category column by the places of its values, from 1 on; 0 where missing or unseen."""
        values = self.categories[name]
        # Runs of earlier versions know values as they were written, ` Ulm` or `True`: those come first.
        exact = {value: code for code, value in enumerate(values, 1)}
        alike = {category(value): code for value, code in reversed(exact.items())}
        return [exact.get(text_of(row.get(name)) or "") or alike.get(category(row.get(name)), 0) for row in table]

    def lacking(self, known: Iterable[str]) -> list[str]:
        """The columns that training had and these are not; an object that is empty everywhere has all its parts."""
        names = set(known)
        parents = {f"{name}." for name in names}
        return [
            name
            for name in (*self.numbers, *self.categories, *self.dates, *self.texts)
            if name not in names and not any(name.startswith(parent) for parent in parents)
        ]

    def check(self, rows: "Dataset", split: str, lenient: bool = False) -> list[Problem]:
        """A problem for each column that a split lacks, or for each cell that is not what its column holds.

        Args:
            lenient: a column that is not there is a missing value, unless none is there.
        """
        lacking = self.lacking(rows.features["features"])  # also of no rows
        if lacking and (not lenient or len(lacking) == len(self._all())):
            return [Problem(f"dataset.{split}", f"has no column {', '.join(map(repr, lacking))}, which training had")]
        table = rows["features"][:]
        wrong: list[tuple[int, str, str]] = []
        for name in self.numbers:
            cells = self.cells(table, name)
            faults = numpy.flatnonzero(numpy.isnan(self.numbers_in(table, name))).tolist()
            wrong += [(row, name, "a number") for row in faults if cells[row] is not None]
        for name, date in self.dates.items():
            cells = self.cells(table, name)
            faults = numpy.flatnonzero(dates.read_or_iso(cells, date["form"]).isna()).tolist()
            like = f"a date like {dates.shown(date['form'])}"
            wrong += [(row, name, like) for row in faults if cells[row] is not None]
        return listed(
            [
                Problem(rows[row]["id"], f"{name} is {table[row][name]!r}, not {kind} ({split})")
                for row, name, kind in sorted(wrong, key=lambda fault: fault[0])
            ]
        )

    def made_up(self) -> dict[str, Any]:
        """A row of middling numbers, the most frequent categories, dates as ISO has them, and texts of a few words."""
        middle = {name: float(f"{scale[self._middle(scale)]:.4g}") for name, scale in self.numbers.items()}
        most = {name: values[0] if values else None for name, values in self.categories.items()}
        starts = {
            name: pandas.Timestamp(date["days"][self._middle(date["days"])], unit="D")
            for name, date in self.dates.items()
        }
        days = {
            name: day.floor("min" if self.dates[name]["clock"] else "D").isoformat() for name, day in starts.items()
        }
        # The words of the least idf, those of most rows.
        common = {name: sorted(zip(text.idf, text.terms, strict=True))[:3] for name, text in self.texts.items()}
        return middle | most | days | {name: " ".join(term for _, term in terms) for name, terms in common.items()}

    def _middle(self, scale: list[float]) -> int:
        """The place of the mean, or of the median among quantiles."""
        return 0 if self.scaling == "standard" else len(scale) // 2

    def encode(self, table: list[dict[str, Any]]) -> Encoded:
        """The columns of some rows as a model sees them."""
        numbers = [scaled(self.numbers_in(table, name), scale, self.scaling) for name, scale in self.numbers.items()]
        for name, date in self.dates.items():
            found = dates.read_or_iso(self.cells(table, name), date["form"])
            numbers.append(scaled(dates.days(found), date["days"], self.scaling))
            numbers += dates.cycles(found, date["clock"])
        texts = [text.encode(self.cells(table, name)) for name, text in self.texts.items()]
        matrix = numpy.column_stack([numpy.zeros((len(table), 0)), *numbers, *texts])
        missing = numpy.isnan(matrix)
        categories = numpy.zeros((len(table), len(self.categories)), dtype=numpy.int64)
        for column, name in enumerate(self.categories):
            categories[:, column] = self.codes_in(table, name)
        return Encoded(numpy.where(missing, 0.0, matrix), missing.astype(float), categories)

    def notes_of_rows(self, rows: "Dataset", split: str) -> list[str]:
        """What of some rows is unlike training: columns that are not there, and those whose values are mostly new."""
        known = list(rows.features["features"])
        notes = []
        if lacking := self.lacking(known):
            new = [name for name in known if name not in self.left_out and name not in self._all()]
            typed = f"; training had no column {_few(list(map(repr, new)))}" if new else ""
            names = _few(list(map(repr, lacking)))
            absent = f"column {names}, which counts" if len(lacking) == 1 else f"columns {names}, which count"
            notes.append(f"{split} has no {absent} as missing{typed}")
        table = rows["features"][:]
        for name, values in self.categories.items():
            if name in lacking:
                continue
            cells, codes = self.cells(table, name), self.codes_in(table, name)
            there = [row for row, cell in enumerate(cells) if cell is not None]
            new = [str(cells[row]) for row in there if not codes[row]]
            if 2 * len(new) > len(there):
                had = f"those of training are {_few(list(map(repr, values)))}" if values else "training had none twice"
                if len(there) == 1:
                    notes.append(f"{split}: {name} has the new value {new[0]!r}; {had}")
                else:
                    count = f"{len(new):,} of {len(there):,} values"
                    notes.append(f"{split}: {count} of {name} are new, such as {new[0]!r}; {had}")
        for name, text in self.texts.items():
            there = [cell for cell in self.cells(table, name) if cell is not None]
            strange = int((~text.known(there)).sum()) if there else 0
            if 2 * strange > len(there):
                notes.append(f"{split}: {strange:,} of {len(there):,} texts of {name} have no word known from training")
        return notes

    def _all(self) -> set[str]:
        return {*self.numbers, *self.categories, *self.dates, *self.texts}

    def notes(self) -> list[str]:
        """What the columns were taken for, to print."""
        flags = {name for name, form in self.forms.items() if form["style"] == FLAG}
        kinds = {
            "number": [f"{name} (true/false)" if name in flags else name for name in self.numbers],
            "category": list(self.categories),
            "date": [f"{name} ({dates.shown(date['form'])})" for name, date in self.dates.items()],
            "text": [f"{name} ({len(t.terms):,} terms as {t.width} numbers)" for name, t in self.texts.items()],
        }
        found = [f"{_count(len(names), kind)}: {_few(names)}" for kind, names in kinds.items() if names]
        notes = [f"columns: {'; '.join(found)}"]
        if self.left_out:
            notes.append(f"left out: {_few([f'{name} ({why})' for name, why in self.left_out.items()])}")
        return notes + self.remarks


def learn_columns(table: list[dict[str, Any]], options: sections.Tabular) -> TableColumns:
    """What there is to learn of the columns of the training rows.

    Raises:
        UserError: for options that name no column, and for a table without a column to learn from.
    """
    named = {
        key: [part for name in getattr(options, key) for part in parts_of(name, table[0])]
        for key in ("numbers", "categories", "dates", "texts", "ignore")
    }
    problems = [
        Problem(f"task.{key}", f"there is no column {name!r}", hint=f"They are {', '.join(table[0])}.")
        for key, names in named.items()
        for name in names
        if name not in table[0]
    ]
    options = options.model_copy(update=named)
    found = TableColumns(scaling=options.scaling, missing=[str(category(text)) for text in options.missing])
    counting, sentences = [], dict[str, str]()
    for name in table[0] if not problems else ():
        cells = found.cells(table, name)
        why = "task.ignore" if name in options.ignore else None
        if why is None and name not in (*options.numbers, *options.categories, *options.dates, *options.texts):
            why = constant(cells)
            if why is None and counts_rows(cells):
                counting.append(name)
                why = "it numbers the rows"
            problems += _lists(name, cells) if why is None else []
        if why is None and name in options.texts:
            why = _learn_text(name, cells, options, found)
        elif why is None:
            why = _learn_column(name, [cell for cell in cells if cell is not None], options, found, sentences)
        if why:
            found.left_out[name] = why
    if problems:
        raise UserError(problems, "the data")
    hint = ""
    if sentences:
        which = ", ".join(f"{name} ({why})" for name, why in sentences.items())
        look, whose = ("looks", "its") if len(sentences) == 1 else ("look", "their")
        hint = f"to learn from {whose} words, write task.texts=[{','.join([*options.texts, *sentences])}]"
        found.remarks.append(f"{which} {look} like free text; {hint}")
    if found.numbers or found.categories or found.dates or found.texts:
        if options.bins:
            seen = found.encode(table)
            columns = zip(seen.numbers.T, seen.missing.T, strict=True)
            found.bin_edges = [bin_edges(numbers[missing == 0], options.bins) for numbers, missing in columns]
        return found
    if counting:  # a table of little else
        return learn_columns(table, options.model_copy(update={"numbers": [*options.numbers, *counting]}))
    reasons = ", ".join(f"{name} ({why})" for name, why in found.left_out.items())
    what = f"no column is left to learn from: {reasons}"
    advice = f"{hint[0].upper()}{hint[1:]}." if hint else ""
    raise UserError(Problem("dataset.columns.features", what, hint=advice), "the data")


def _lists(name: str, cells: list[Any]) -> list[Problem]:
    """A problem for a column of lists, written as JSON or as Python has them: a cell of a table is one value."""
    texts = [str(cell) for cell in cells if cell is not None]
    if not texts or not all(text.startswith("[") and text.endswith("]") for text in texts):
        return []
    short = texts[0] if len(texts[0]) <= 40 else f"{texts[0][:40]}…"
    what = f"{name} holds lists, such as {short}, and a cell of a table holds one value"
    hint = f"Make a column of each place of the list, or leave it out: task.ignore=[{name}]."
    return [Problem("dataset.columns.features", what, hint=hint)]


def _learn_column(
    name: str, cells: list[Any], options: sections.Tabular, found: TableColumns, sentences: dict[str, str]
) -> str | None:
    """Put a column's cells, those that are missing left out, into `found`; the reason if there is nothing to learn.

    Args:
        sentences: gets the column, and why, if it looks like free text.
    """
    free = name not in (*options.numbers, *options.categories, *options.dates)
    form, fitting = form_of(cells) if free or name in options.numbers else (PLAIN_FORM, 0)
    if name in options.numbers or (free and len(cells) and fitting == len(cells)):
        values = numbers_of(cells, form)
        values = values[~numpy.isnan(values)]
        found.numbers[name] = learn_scale(values, options.scaling)
        if form != PLAIN_FORM:
            found.forms[name] = form
        if how := form["style"] != FLAG and shown(form, cells):
            found.remarks.append(f"{name} is read as numbers: {how}")
        if free and (odd := orders_rows(values)):
            found.remarks.append(f"{name} may be no feature: {odd}; to leave it out, write task.ignore=[{name}]")
        return None
    forced = name in options.dates and len(cells) > 0
    written = dates.form_of(cells) if cells and name not in options.categories else None
    if written is None and forced:
        written = dates.nearest_form(cells)
    if written is not None:
        days = dates.days(dates.read(cells, written))
        days = days[~numpy.isnan(days)]
        found.dates[name] = {
            "form": written,
            "days": learn_scale(days, options.scaling),
            "clock": bool((days % 1).any()),
        }
        return None
    if free and cells:
        odd_cells = _nearly(name, cells, ~numpy.isnan(numbers_of(cells, form)), "numbers") or _nearly_dates(name, cells)
        found.remarks += odd_cells
        if not odd_cells and (why := looks_like_text(cells)):
            sentences[name] = why
    common = [value for value, count in Counter(map(category, cells)).most_common() if count >= options.min_count]
    if not common and name not in options.categories:
        return f"no value stands in {options.min_count} rows"
    found.categories[name] = [value for value in common if value is not None]
    return None


def _learn_text(name: str, cells: list[Any], options: sections.Tabular, found: TableColumns) -> str | None:
    """Put a text column, None for what is missing, into `found`; the reason if there is nothing to learn."""
    text = learn_texts(cells, options.text_size, options.min_count)
    if text is None:
        return f"no word stands in {options.min_count} rows"
    found.texts[name] = text
    return None


def _nearly(name: str, cells: list[Any], fits: numpy.ndarray, kind: str) -> list[str]:
    """A line on a column that would be numbers or dates except for a few cells, or except for a mark or two."""
    others = list(dict.fromkeys(str(cells[row]) for row in numpy.flatnonzero(~fits)))
    share = fits.mean()
    if share < (0.5 if len(others) <= 2 else MOSTLY):
        return []
    count = f"{int(fits.sum()):,} of {len(cells):,} cells are {kind}"
    marks = ",".join(f"'{other}'" for other in others[:2])
    what = f"{name}: {count}, the others are such as {', '.join(map(repr, others[:3]))}, so that it is a category"
    return [f"{what}; if they stand for no value, write task.missing=[{marks}]"]


def _nearly_dates(name: str, cells: list[Any]) -> list[str]:
    """The same for dates, looked for only where many cells have the digits of a year."""
    sample = [cell for cell in cells[:SAMPLE] if sum(map(str.isdigit, str(cell))) >= 4]
    if 2 * len(sample) < min(len(cells), SAMPLE):
        return []
    fits = dates.read(cells, dates.nearest_form(sample)).notna()
    return _nearly(name, cells, numpy.asarray(fits), "dates")


def _count(number: int, kind: str) -> str:
    plural = {"number": "numbers", "category": "categories", "date": "dates", "text": "texts"}
    return f"{number} {kind if number == 1 else plural[kind]}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
