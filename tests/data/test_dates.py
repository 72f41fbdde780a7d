"""How dates are written, and what of them a model sees."""

import datetime

import numpy
import pandas
import pytest

from llmft.data.dates import cycles, days, form_of, nearest_form, read, read_or_iso, readable_format

FORMS = {
    "YYYY-MM-DD": ["2024-01-31", "1999-12-01"],
    "ISO with clocks": ["2024-01-31T10:00:00", "2024-01-31 10:00:00.5", "2024-01-31"],
    "DD.MM.YYYY": ["31.01.2024", "1.2.1999"],
    "ISO with slashes": ["2024/01/31", "1999/2/1"],
    "MM/DD/YYYY": ["01/31/2024", "2/1/1999"],
    "DD/MM/YYYY": ["31/01/2024", "1/2/1999"],
    "MM/DD/YYYY HH:MM": ["01/31/2024 10:30"],
    "DD Mon YYYY": ["31 Jan 2024", "1 Feb 1999"],
    "Month DD, YYYY": ["January 31, 2024", "May 1, 1999"],
    "YYYY年MM月DD日": ["2024年1月31日"],
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_recognised(name: str) -> None:
    form = form_of(FORMS[name])
    assert form is not None
    assert readable_format(form) == ("YYYY-MM-DD" if name.startswith("ISO") else name)
    assert read(FORMS[name][:1], form)[0].date() == datetime.date(2024, 1, 31)


NONE = {
    "words": ["red", "blue"],
    "words with numbers": ["A11", "A12"],
    "a month that is not there": ["31.13.2024"],
    "two forms": ["31.01.2024", "2024-01-31"],
    "one that is none": ["2024-01-31", "soon"],
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_date_is_not_taken_for_one(name: str) -> None:
    assert form_of(NONE[name]) is None


def test_dates_of_parquet_are_dates() -> None:
    assert form_of([datetime.date(2024, 1, 31), datetime.datetime(2024, 1, 31, 12)]) is not None


def test_most_cells_decide_where_a_form_is_wanted() -> None:
    assert readable_format(nearest_form(["2024-01-31", "13.01.2024", "14.01.2024", "soon"])) == "DD.MM.YYYY"


def test_days_and_cycles_by_hand() -> None:
    dates = read(["1970-01-02T12:00", "2024-01-01T18:00+06:00", None], "ISO8601")  # a Friday; a Monday, noon in UTC
    assert days(dates).tolist() == pytest.approx([1.5, 19723.5, numpy.nan], nan_ok=True)
    turns = [1 / 365.25, 0.0], [4 / 7, 0.0], [0.5, 0.5]
    found = cycles(dates, clock=True)
    assert len(found) == 6
    for (sine, cosine), turn in zip(zip(found[::2], found[1::2], strict=True), turns, strict=True):
        angle = 2 * numpy.pi * numpy.array(turn)
        assert sine.tolist() == pytest.approx([*numpy.sin(angle), numpy.nan], nan_ok=True)
        assert cosine.tolist() == pytest.approx([*numpy.cos(angle), numpy.nan], nan_ok=True)
    assert len(cycles(dates, clock=False)) == 4


def test_dates_that_nanoseconds_do_not_reach() -> None:
    dates = read(["9999-12-31", "1600-01-01", None], "ISO8601")
    first, second, none = days(dates)
    assert (first, second) == tuple(
        (datetime.date(*d) - datetime.date(1970, 1, 1)).days for d in ((9999, 12, 31), (1600, 1, 1))
    )
    assert numpy.isnan(none)
    assert all(numpy.isfinite(wave[:2]).all() for wave in cycles(dates, clock=True))


def test_iso_is_read_in_a_column_of_another_form() -> None:
    cells = ["03.05.2024", "2024-05-03", " 2024-05-03T10:00", "05/03/2024", None, "2024-02-30", "2024"]
    found = read_or_iso(cells, "%d.%m.%Y")
    assert [None if day is pandas.NaT else (day.month, day.day, day.hour) for day in found] == [
        (5, 3, 0), (5, 3, 0), (5, 3, 10), None, None, None, None
    ]  # fmt: skip
