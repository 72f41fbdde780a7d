"""Dates of a table: how they are written, and what of them a model sees."""

import re
from collections.abc import Sequence
from typing import Any

import numpy
import pandas

ISO = "ISO8601"
_DAYS = ("%d.%m.%Y", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
FORMS = (ISO, *(day + clock for day in (*_DAYS, "%Y年%m月%d日") for clock in ("", " %H:%M", " %H:%M:%S")))
"""Ways to write a date, in the words of `strftime`; of two that fit all cells, the first is taken."""

DAY = re.compile(r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}")


def read(cells: Sequence[Any], form: str) -> pandas.DatetimeIndex:
    """Dates in UTC; NaT for a cell that holds none, or none of this form."""
    return pandas.DatetimeIndex(
        pandas.to_datetime(pandas.Series(cells, dtype=object), format=form, errors="coerce", utc=True)
    )


def read_or_iso(cells: Sequence[Any], form: str) -> pandas.DatetimeIndex:
    """The same, but `2024-05-03`, of which nobody can be in doubt, is read in any column of dates."""
    found = read(cells, form)
    again = [cell if isinstance(cell, str) and DAY.match(cell) else None for cell in cells]
    return found.where(found.notna(), read(again, ISO)) if any(again) else found


def form_of(cells: Sequence[Any]) -> str | None:
    """The form in which all cells, none of them empty, are dates; None if there is none."""
    first = cells[0]
    # Most columns of texts end here. Without a digit no form fits, and all 31 would be tried.
    if isinstance(first, str) and not any(character.isdigit() for character in first):
        return None
    # One cell rules out all forms but one or two in 20 ms, as long as a single form takes on 10,000 cells.
    fitting = (form for form in FORMS if not read(cells[:1], form).hasnans)
    return next((form for form in fitting if not read(cells, form).hasnans), None)


def nearest_form(cells: Sequence[Any]) -> str:
    """The form in which most cells are dates."""
    return max(FORMS, key=lambda form: int(read(cells, form).notna().sum()))


def days(dates: pandas.DatetimeIndex) -> numpy.ndarray:
    """Days since 1970 (rows,), with parts of a day; NaN where there is no date."""
    # Of microseconds: nanoseconds, which Timestamp(0) counts, end in 2262, and 9999-12-31 often stands for no end.
    start = pandas.Timestamp("1970-01-01", tz="UTC").as_unit("us")
    since: numpy.ndarray = ((dates.as_unit("us") - start) / pandas.Timedelta(days=1)).to_numpy(dtype=float)
    return since


def cycles(dates: pandas.DatetimeIndex, clock: bool) -> list[numpy.ndarray]:
    """Sine and cosine, (rows,) each, of the place in the year and in the week, and with `clock` in the day."""
    # As angles, so that December 31 lies beside January 1, and Sunday beside Monday.
    hours = ((dates - dates.normalize()) / pandas.Timedelta(days=1)).to_numpy(dtype=float)
    turns = [(dates.day_of_year - 1) / 365.25, dates.day_of_week / 7, *([hours] if clock else [])]
    angles = [2 * numpy.pi * numpy.asarray(turn, dtype=float) for turn in turns]
    return [wave(angle) for angle in angles for wave in (numpy.sin, numpy.cos)]


def shown(form: str) -> str:
    """A form as people write it: `DD.MM.YYYY`."""
    signs = {"%d": "DD", "%m": "MM", "%Y": "YYYY", "%b": "Mon", "%B": "Month", "%H": "HH", "%M": "MM", "%S": "SS"}
    for sign, letters in signs.items():
        form = form.replace(sign, letters)
    return "YYYY-MM-DD" if form == ISO else form
