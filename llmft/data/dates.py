"""Dates in tables: recognizing their format, parsing them, and turning them into numbers for a model."""

import re
from collections.abc import Sequence
from typing import Any

import numpy
import pandas

ISO = "ISO8601"
_DAYS = ("%d.%m.%Y", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
FORMS = (ISO, *(day + clock for day in (*_DAYS, "%Y年%m月%d日") for clock in ("", " %H:%M", " %H:%M:%S")))
"""Date formats as for `strftime`. If two fit all cells, the first is used: 03/04/2024 is March 4."""

DAY = re.compile(r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}")


def read(cells: Sequence[Any], form: str) -> pandas.DatetimeIndex:
    """Dates in UTC, (rows,); NaT for a cell that is not a date in this format."""
    return pandas.DatetimeIndex(
        pandas.to_datetime(pandas.Series(cells, dtype=object), format=form, errors="coerce", utc=True)
    )


def read_or_iso(cells: Sequence[Any], form: str) -> pandas.DatetimeIndex:
    """As `read`, but `2024-05-03`, which has one meaning only, is parsed in a column of any format."""
    found = read(cells, form)
    again = [cell if isinstance(cell, str) and DAY.match(cell) else None for cell in cells]
    return found.where(found.notna(), read(again, ISO)) if any(again) else found


def form_of(cells: Sequence[Any]) -> str | None:
    """The format in which all cells, none of them empty, are dates; None if there is none."""
    first = cells[0]
    # Most text columns end here. Without a digit no format can fit, and all 31 would be tried.
    if isinstance(first, str) and not any(character.isdigit() for character in first):
        return None
    # The first cell rules out all formats but one or two. That takes 20 ms, as long as one format on 10,000 cells.
    fitting = (form for form in FORMS if not read(cells[:1], form).hasnans)
    return next((form for form in fitting if not read(cells, form).hasnans), None)


def nearest_form(cells: Sequence[Any]) -> str:
    """The format in which most cells are dates, for an error that names the cells which are not."""
    return max(FORMS, key=lambda form: int(read(cells, form).notna().sum()))


def days(dates: pandas.DatetimeIndex) -> numpy.ndarray:
    """Days since 1970, (rows,) float, with fractions of a day; NaN for NaT."""
    # In microseconds: pandas' nanoseconds end in 2262, and 9999-12-31 often means "no end".
    start = pandas.Timestamp("1970-01-01", tz="UTC").as_unit("us")
    since: numpy.ndarray = ((dates.as_unit("us") - start) / pandas.Timedelta(days=1)).to_numpy(dtype=float)
    return since


def cycles(dates: pandas.DatetimeIndex, clock: bool) -> list[numpy.ndarray]:
    """Sine and cosine, (rows,) each, of the position in the year and in the week, and with `clock` in the day."""
    # As angles, so that December 31 is next to January 1, and Sunday next to Monday.
    hours = ((dates - dates.normalize()) / pandas.Timedelta(days=1)).to_numpy(dtype=float)
    turns = [(dates.day_of_year - 1) / 365.25, dates.day_of_week / 7, *([hours] if clock else [])]
    angles = [2 * numpy.pi * numpy.asarray(turn, dtype=float) for turn in turns]
    return [wave(angle) for angle in angles for wave in (numpy.sin, numpy.cos)]


def readable_format(form: str) -> str:
    """A format as people write it: `DD.MM.YYYY`."""
    signs = {"%d": "DD", "%m": "MM", "%Y": "YYYY", "%b": "Mon", "%B": "Month", "%H": "HH", "%M": "MM", "%S": "SS"}
    for sign, letters in signs.items():
        form = form.replace(sign, letters)
    return "YYYY-MM-DD" if form == ISO else form
