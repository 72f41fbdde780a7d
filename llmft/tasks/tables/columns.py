"""The columns of a table that a model reads: the kind of each, what was learned from it, and its encoding."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy
import pandas

from llmft.data import dates
from llmft.data.cell_values import category, is_missing, number, parts_of, text_of
from llmft.data.source import Rows, listed
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
    first_code,
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

SHOWN = 6  # names of columns in a note: they fit in a line
WIDE = 33  # columns: of so many, three values each make 100 rows that are asked for one
BEYOND = 1e15  # standard deviations: float32 ends at 3.4e38, and models square their inputs
SAMPLE = 200  # cells in which a date format is looked for: each of the 30 formats takes 1 ms for so many


class Encoded(NamedTuple):
    """The columns of some rows as a model reads them."""

    numbers: numpy.ndarray
    """(rows, N) float64, scaled; missing ones are 0."""
    missing: numpy.ndarray
    """(rows, N) float64, 1 where a number is missing."""
    categories: numpy.ndarray
    """(rows, C) int64, 0 where missing or unseen."""


class DateColumn(TypedDict):
    """What was learned from a date column."""

    form: str
    """Its format; see llmft.data.dates."""
    days: list[float]
    """The scale of the days."""
    clock: bool
    """Whether its dates have times of day."""


@dataclass
class TableColumns:
    """What was learned from each column."""

    numbers: dict[str, list[float]] = field(default_factory=dict)
    """Number columns and their scales: mean and standard deviation, or quantiles."""
    categories: dict[str, list[str]] = field(default_factory=dict)
    """Category columns and their values, the most frequent first."""
    dates: dict[str, DateColumn] = field(default_factory=dict)
    texts: dict[str, TextColumn] = field(default_factory=dict)
    scaling: Scaling = "standard"
    left_out: dict[str, str] = field(default_factory=dict)
    """Columns that are not read, and why."""
    forms: dict[str, NumberForm] = field(default_factory=dict)
    """Number columns that are not written with digits and a point alone, and their format."""
    missing: list[str] = field(default_factory=list)
    """Texts that mean a missing value in this table, in the form of `llmft.data.cell_values.category`."""
    bin_edges: list[list[float]] = field(default_factory=list)
    """The bins of each number that a model reads, for its piecewise-linear encoding; empty without `task.bins`."""
    remarks: list[str] = field(default_factory=list)
    """What looks like a mistake, for `notes`."""

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return [*self.numbers, *self.categories, *self.dates, *self.texts]

    @property
    def num_numbers(self) -> int:
        """Numbers that a model reads from a row; a date or a text becomes several."""
        return sum(self._widths().values())

    def _widths(self) -> dict[str, int]:
        """How many numbers each column becomes, in the order of `Encoded`."""
        widths = dict.fromkeys(self.numbers, 1)
        # A date becomes its days, and sine and cosine of year and week: 5 numbers; times add those of the day: 7.
        widths |= {name: 7 if date["clock"] else 5 for name, date in self.dates.items()}
        return widths | {name: text.width for name, text in self.texts.items()}

    @property
    def category_sizes(self) -> list[int]:
        """Values of each category column."""
        return [len(values) for values in self.categories.values()]

    def positions(self) -> dict[str, dict[str, list[int]]]:
        """The positions of each column in `Encoded`, by part."""
        found: dict[str, dict[str, list[int]]] = {}
        start = 0
        for name, width in self._widths().items():
            own = list(range(start, start + width))
            found[name] = {"numbers": own, "missing": own}
            start += width
        return found | {name: {"categories": [column]} for column, name in enumerate(self.categories)}

    def cells(self, table: list[dict[str, Any]], name: str) -> list[Any]:
        """A column of the table, None for missing cells; if there is no such column, all are missing."""
        found = (row.get(name) for row in table)
        return [None if is_missing(cell, self.missing) else cell for cell in found]

    def numbers_in(self, table: list[dict[str, Any]], name: str) -> numpy.ndarray:
        """A number column as float64 (rows,), NaN for cells that are not numbers."""
        return numbers_of(self.cells(table, name), self.forms.get(name, PLAIN_FORM))

    def codes_in(self, table: list[dict[str, Any]], name: str) -> list[int]:
        """(rows,): the number of each value, counted from 1; 0 for missing and unseen ones."""
        values = self.categories[name]
        # Earlier versions saved values as they were written, such as ` Ulm` or `True`: an exact match counts first.
        exact = {value: code for code, value in enumerate(values, 1)}
        alike = {category(value): code for value, code in reversed(exact.items())}
        return [exact.get(text_of(row.get(name)) or "") or alike.get(category(row.get(name)), 0) for row in table]

    def lacking(self, known: Iterable[str]) -> list[str]:
        """The columns of training that are not in `known`; an object that is always empty has all its parts."""
        names = set(known)
        parents = {f"{name}." for name in names}
        return [
            name for name in self.names if name not in names and not any(name.startswith(parent) for parent in parents)
        ]

    def check(self, rows: Rows, split: str, lenient: bool = False) -> list[Problem]:
        """A problem for each column that a split lacks, and for each cell that does not fit its column.

        Args:
            lenient: whether a missing column counts as missing values; one column must be there.
        """
        names = cell_names(rows)
        lacking = self.lacking(names)
        # A typed row may leave columns out, but one without any column of training is of another table.
        if lacking and (not lenient or len(lacking) == len(self.names)):
            what = f"has no column {', '.join(map(repr, lacking))}, which training had"
            what += f"; it has {_few(names) or 'none'}"
            return [Problem(f"dataset.{split}", what, hint="Rename its columns, or add empty ones with these names.")]
        table = rows["features"][:]
        # Cells that are missing are never wrong: the model has an input for them.
        wrong: list[tuple[int, str, str]] = []
        for name, scale in self.numbers.items():
            cells, numbers = self.cells(table, name), self.numbers_in(table, name)
            faults = numpy.flatnonzero(numpy.isnan(numbers)).tolist()
            wrong += [(row, name, "a number") for row in faults if cells[row] is not None]
            # `not <=`, so that what has no place on the scale at all counts, too.
            beyond = ~numpy.isnan(numbers) & ~(numpy.abs(scaled(numbers, scale, self.scaling)) <= BEYOND)
            near = f"a number within {BEYOND:g} standard deviations of those of training"
            wrong += [(row, name, near) for row in numpy.flatnonzero(beyond).tolist()]
        for name, date in self.dates.items():
            cells = self.cells(table, name)
            faults = numpy.flatnonzero(dates.read_or_iso(cells, date["form"]).isna()).tolist()
            like = f"a date like {dates.readable_format(date['form'])}"
            wrong += [(row, name, like) for row in faults if cells[row] is not None]
        return listed(
            [
                Problem(rows["id"][row], f"{name} is {table[row][name]!r}, not {kind} ({split})")
                for row, name, kind in sorted(wrong, key=lambda fault: fault[0])
            ]
        )

    def example_row(self) -> dict[str, Any]:
        """A made-up row: average numbers, the most frequent categories, ISO dates, and texts of a few words."""
        middle = {name: float(f"{scale[self._middle(scale)]:.4g}") for name, scale in self.numbers.items()}
        most = {name: values[0] if values else None for name, values in self.categories.items()}
        starts = {
            name: pandas.Timestamp(date["days"][self._middle(date["days"])], unit="D")
            for name, date in self.dates.items()
        }
        # At the resolution of the column: a date with a time of day would look like another kind of column.
        days = {
            name: day.floor("min" if self.dates[name]["clock"] else "D").isoformat() for name, day in starts.items()
        }
        # The words with the smallest idf, which occur in most rows.
        common = {name: sorted(zip(text.idf, text.terms, strict=True))[:3] for name, text in self.texts.items()}
        return middle | most | days | {name: " ".join(term for _, term in terms) for name, terms in common.items()}

    def typical_cells(self) -> dict[str, list[Any]]:
        """For each column cells that stand for the training rows: explanations put them in the place of a cell.

        Values and not gaps, since a model that has seen no missing value may answer anything to one. Of three, since a
        single one, such as the mean, may be the value of the row. Texts become empty. In a table of more than
        WIDE columns, each has one.
        """
        found: dict[str, list[Any]] = {}
        for name, scale in self.numbers.items():
            middle, low, high = self._spread(scale)
            if self.forms.get(name, PLAIN_FORM)["style"] == FLAG:  # as often 1 as in training, nearly
                share = sum((middle, low, high)) / 3
                low, middle, high = (float(share > edge) for edge in (5 / 6, 1 / 2, 1 / 6))
            found[name] = [middle, low, high]
        for name, date in self.dates.items():
            days = (pandas.Timestamp(day, unit="D").floor("s") for day in self._spread(date["days"]))
            found[name] = [day.isoformat() for day in days]
        found |= {name: list[Any](values[:3]) or [None] for name, values in self.categories.items()}
        found |= {name: [None] for name in self.texts}
        return {name: cells[:1] if len(found) > WIDE else cells for name, cells in found.items()}

    def plain_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """The cells that a model reads, as numbers and texts: such rows can stand in one column of Arrow."""
        read = {name: float(self.numbers_in([row], name)[0]) for name in self.numbers}
        plain = {name: None if value != value else value for name, value in read.items()}
        return plain | {name: text_of(row.get(name)) for name in (*self.dates, *self.categories, *self.texts)}

    def _spread(self, scale: list[float]) -> tuple[float, float, float]:
        """The middle of the training rows, a low, and a high value."""
        if self.scaling == "standard":
            mean, deviation = scale
            # Three values with the mean and the deviation of the column.
            return mean, mean - 1.5**0.5 * deviation, mean + 1.5**0.5 * deviation
        middle, low, high = numpy.interp([1 / 2, 1 / 6, 5 / 6], numpy.linspace(0, 1, len(scale)), scale).tolist()
        return middle, low, high

    def _middle(self, scale: list[float]) -> int:
        """The index of the mean in a scale, or of the median among quantiles."""
        return 0 if self.scaling == "standard" else len(scale) // 2

    def encode(self, table: list[dict[str, Any]]) -> Encoded:
        """Encode some rows; columns that they lack are missing values."""
        numbers = [scaled(self.numbers_in(table, name), scale, self.scaling) for name, scale in self.numbers.items()]
        for name, date in self.dates.items():
            found = dates.read_or_iso(self.cells(table, name), date["form"])
            numbers.append(scaled(dates.days(found), date["days"], self.scaling))
            numbers += dates.cycles(found, date["clock"])
        texts = [text.encode(self.cells(table, name)) for name, text in self.texts.items()]
        # The empty matrix gives the number of rows to a table without numbers.
        matrix = numpy.column_stack([numpy.zeros((len(table), 0)), *numbers, *texts])
        # A missing number becomes 0, the mean, and its own input says so: zero alone would be a value.
        missing = numpy.isnan(matrix)
        categories = numpy.zeros((len(table), len(self.categories)), dtype=numpy.int64)
        for column, name in enumerate(self.categories):
            categories[:, column] = self.codes_in(table, name)
        return Encoded(numpy.where(missing, 0.0, matrix), missing.astype(float), categories)

    def notes_of_rows(self, rows: "Dataset", split: str) -> list[str]:
        """Notes on rows that differ from training: missing columns, and columns whose values are mostly new."""
        known = list(rows.features["features"])
        notes = []
        if lacking := self.lacking(known):
            new = [name for name in known if name not in self.left_out and name not in self.names]
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
            # From half on: some new values, such as names, are to be expected.
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

    def measurements(self, table: list[dict[str, Any]]) -> dict[str, list[float | str | None]]:
        """The numbers and categories of each column, days of a date, and the length of a text; None where missing."""
        found: dict[str, list[float | str | None]] = {}
        for name in self.numbers:
            found[name] = [None if numpy.isnan(value) else value for value in self.numbers_in(table, name).tolist()]
        for name, date in self.dates.items():
            days = dates.days(dates.read_or_iso(self.cells(table, name), date["form"])).tolist()
            found[name] = [None if numpy.isnan(value) else value for value in days]
        for name in self.texts:
            found[name] = [None if cell is None else len(str(cell).split()) for cell in self.cells(table, name)]
        for name, values in self.categories.items():
            pairs = zip(self.cells(table, name), self.codes_in(table, name), strict=True)
            # A value that training had not keeps its text for itself.
            found[name] = [None if cell is None else values[code - 1] if code else "new" for cell, code in pairs]
        return found

    def kinds(self) -> dict[str, list[str]]:
        """The columns of each kind as a note shows them."""
        flags = {name for name, form in self.forms.items() if form["style"] == FLAG}
        return {
            "number": [f"{name} (true/false)" if name in flags else name for name in self.numbers],
            "category": list(self.categories),
            "date": [f"{name} ({dates.readable_format(date['form'])})" for name, date in self.dates.items()],
            "text": [f"{name} ({len(t.terms):,} terms as {t.width} numbers)" for name, t in self.texts.items()],
        }

    def notes(self) -> list[str]:
        """The kinds of the columns, and what was left out, a line each."""
        found = [f"{_count(len(names), kind)}: {_few(names)}" for kind, names in self.kinds().items() if names]
        notes = [f"columns: {'; '.join(found)}"]
        if self.left_out:
            notes.append(f"left out: {_few([f'{name} ({why})' for name, why in self.left_out.items()])}")
        return notes + self.remarks


def learn_columns(
    table: list[dict[str, Any]], options: sections.TableSection, all_columns: bool = True
) -> TableColumns:
    """Learn the kind and the encoding of each column from the training rows.

    Args:
        all_columns: whether these are all columns of a model; if not, none need be left.

    Raises:
        UserError: for options that name no column, and if no column is left.
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
    # From here on, an object in task.numbers and the like stands for its nested columns.
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
    if found.names or not all_columns:
        if options.bins and found.num_numbers:
            # Edges of the scaled numbers, which are what the model reads.
            seen = found.encode(table)
            columns = zip(seen.numbers.T, seen.missing.T, strict=True)
            found.bin_edges = [bin_edges(numbers[missing == 0], options.bins) for numbers, missing in columns]
        return found
    # A column that counts rows is left out unless all others are, too: then it is what there is to learn from.
    if counting:
        return learn_columns(table, options.model_copy(update={"numbers": [*options.numbers, *counting]}))
    # Every column was left out: the message has the reason of each, since one of them is probably a mistake.
    reasons = ", ".join(f"{name} ({why})" for name, why in found.left_out.items())
    what = f"no column is left to learn from: {reasons}"
    advice = f"{hint[0].upper()}{hint[1:]}." if hint else ""
    raise UserError(Problem("dataset.columns.features", what, hint=advice), "the data")


def _lists(name: str, cells: list[Any]) -> list[Problem]:
    """A problem for a column of lists, written as JSON or as in Python: a cell of a table is one value."""
    texts = [str(cell) for cell in cells if cell is not None]
    # All cells: a single text in brackets is just a text.
    if not texts or not all(text.startswith("[") and text.endswith("]") for text in texts):
        return []
    short = texts[0] if len(texts[0]) <= 40 else f"{texts[0][:40]}…"
    what = f"{name} holds lists, such as {short}, and a cell of a table holds one value"
    hint = f"Make a column of each place of the list, or leave it out: task.ignore=[{name}]."
    return [Problem("dataset.columns.features", what, hint=hint)]


def _learn_column(
    name: str, cells: list[Any], options: sections.TableSection, found: TableColumns, sentences: dict[str, str]
) -> str | None:
    """Learn one column from its cells and add it to `found`; the reason if there is nothing to learn.

    Args:
        cells: without the missing ones.
        sentences: gets the name of the column, and why, if it looks like free text.
    """
    free = name not in (*options.numbers, *options.categories, *options.dates)
    # Numbers come before dates, and dates before categories: 2024 is a number, 2024-05-01 a date.
    form, fitting = form_of(cells) if free or name in options.numbers else (PLAIN_FORM, 0)
    if name in options.numbers or (free and len(cells) and fitting == len(cells)):
        values = numbers_of(cells, form)
        values = values[~numpy.isnan(values)]
        found.numbers[name] = learn_scale(values, options.scaling)
        if form != PLAIN_FORM:
            found.forms[name] = form
        if how := form["style"] != FLAG and shown(form, cells):
            found.remarks.append(f"{name} is read as numbers: {how}")
        if free and form == PLAIN_FORM and (code := first_code(cells)):
            hint = f"if the zeros count, write task.categories=[{','.join([*options.categories, name])}]"
            found.remarks.append(f"{name} is read as numbers: {code!r} is {number(code):.15g}; {hint}")
        # Noted and not left out: a rising column may be a real feature, such as a price over the years.
        if free and (odd := orders_rows(values)):
            found.remarks.append(f"{name} may be no feature: {odd}; to leave it out, write task.ignore=[{name}]")
        return None
    forced = name in options.dates and len(cells) > 0
    # A form of dates must fit all cells unless the user says that the column is one: then the best form counts.
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
    # Looked for only in columns whose kind nobody has set.
    if free and cells:
        odd_cells = _nearly(name, cells, ~numpy.isnan(numbers_of(cells, form)), "numbers") or _nearly_dates(name, cells)
        found.remarks += odd_cells
        if not odd_cells and (why := looks_like_text(cells)):
            sentences[name] = why
    # Values in fewer rows than min_count share the code 0, as new ones will.
    common = [value for value, count in Counter(map(category, cells)).most_common() if count >= options.min_count]
    if not common and name not in options.categories:
        return f"no value stands in {options.min_count} rows"
    found.categories[name] = [value for value in common if value is not None]
    return None


def _learn_text(name: str, cells: list[Any], options: sections.TableSection, found: TableColumns) -> str | None:
    """Learn a text column, None for missing cells, and add it to `found`; the reason if there is nothing to learn."""
    text = learn_texts(cells, options.text_size, options.min_count)
    if text is None:
        return f"no word stands in {options.min_count} rows"
    found.texts[name] = text
    return None


def cell_names(rows: Rows) -> list[str]:
    """The names of the cells of a table's rows. A Dataset knows them by its schema: it may have no rows."""
    schema = getattr(rows, "features", None)
    return list(schema["features"] if schema is not None else next(iter(rows["features"]), {}))


def _nearly(name: str, cells: list[Any], fits: numpy.ndarray, kind: str) -> list[str]:
    """A note on a column that would be numbers or dates but for a few cells, or one or two marks for missing values."""
    # In order of the rows, so that the note is the same every time.
    others = list(dict.fromkeys(str(cells[row]) for row in numpy.flatnonzero(~fits)))
    # One or two different texts are probably marks such as `n/a`, however many cells have them.
    share = fits.mean()
    if share < (0.5 if len(others) <= 2 else MOSTLY):
        return []
    count = f"{int(fits.sum()):,} of {len(cells):,} cells are {kind}"
    marks = ",".join(f"'{other}'" for other in others[:2])
    what = f"{name}: {count}, the others are such as {', '.join(map(repr, others[:3]))}, so that it is a category"
    return [f"{what}; if they stand for no value, write task.missing=[{marks}]"]


def _nearly_dates(name: str, cells: list[Any]) -> list[str]:
    """The same for dates, if half of the cells have the four digits of a year: parsing all others would be slow."""
    sample = [cell for cell in cells[:SAMPLE] if sum(map(str.isdigit, str(cell))) >= 4]
    if 2 * len(sample) < min(len(cells), SAMPLE):
        return []
    fits = dates.read(cells, dates.nearest_form(sample)).notna()
    return _nearly(name, cells, numpy.asarray(fits), "dates")


def _count(number: int, kind: str) -> str:
    plural = {"category": "categories"}
    return f"{number} {kind if number == 1 else plural.get(kind, f'{kind}s')}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
