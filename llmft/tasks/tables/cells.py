"""Columns of a table: how numbers are written in one, and which columns say nothing or suspiciously much."""

import math
import re
import unicodedata
from collections import Counter
from functools import partial
from typing import Any, TypedDict

import numpy

from llmft.data.cells import FLAGS, NUMBER, category, is_missing, number, text_of

FEW = 20  # rows: with fewer, numbers that count upwards may do so by chance
MANY = 50  # rows: of so many whole numbers drawn from four times as many, one in 500 draws has no two alike
MOSTLY = 0.8  # share of cells from which on a column is one of numbers but for a few

_SPACES = " \u00a0\u202f\u2009"
_SIGNS = {"\u2212": "-", "％": "%"}


def _separated(thousands: str, decimal: str) -> re.Pattern[str]:
    """Numbers with and without groups of thousands. `1,23,456` is how India writes 123456; `0,125` has no groups."""
    groups = rf"[1-9][0-9]{{0,2}}(?:{thousands}[0-9]{{2,3}})*{thousands}[0-9]{{3}}"
    return re.compile(rf"[+-]?(?:{groups}|[0-9]+)(?:{decimal}[0-9]+)?")


PLAIN, FLAG = "1234.5", "true/false"
# The first that fits all cells is taken: of `9,500` alone a comma is one of thousands.
STYLES = {
    PLAIN: (NUMBER, "", "."),
    "1,234.5": (_separated(",", r"\."), ",", "."),
    "1.234,5": (_separated(r"\.", ","), ".", ","),
    "1 234,5": (_separated(f"[{_SPACES}]", ","), _SPACES, ","),
    "1 234.5": (_separated(f"[{_SPACES}]", r"\."), _SPACES, "."),
    "1'234.5": (_separated("['’]", r"\."), "'’", "."),
}
# A dot or a comma before three digits: with a currency sign either may be meant.
_EITHER = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")


class NumberForm(TypedDict):
    """How the numbers of a column are written."""

    style: str
    """One of STYLES; FLAG: 1 and 0, or `true` and `false`."""
    sign: str
    """A currency sign, or `%`, that may stand before or after; empty: none."""


PLAIN_FORM: NumberForm = {"style": PLAIN, "sign": ""}


def numbers_of(cells: list[Any], form: NumberForm = PLAIN_FORM) -> numpy.ndarray:
    """Cells as float64 (rows,); NaN for what is no finite number of this form.

    What is a number already, as in JSON, is one in any form.
    """
    read = number if form == PLAIN_FORM else partial(_number, form=form)
    return numpy.fromiter(map(read, cells), dtype=float, count=len(cells))


def _number(cell: Any, form: NumberForm) -> float:
    if not isinstance(cell, str | bool):
        return number(cell)
    text = text_of(cell) or ""
    if form["style"] == FLAG and text.lower() in FLAGS:
        return float(text.lower() == "true")
    if form["sign"]:
        sign, rest = _bare(text)
        text = rest if sign in ("", form["sign"]) else text
    pattern, thousands, decimal = STYLES.get(form["style"], STYLES[PLAIN])
    text = text.replace("\u2212", "-")
    if pattern.fullmatch(text):
        return number(text.translate({ord(mark): None for mark in thousands}).replace(decimal, "."))
    return number(text) if decimal == "." else math.nan  # 1e5 and .5 are written alike wherever decimals have a point


def _bare(text: str) -> tuple[str, str]:
    """The sign that stands before or after a number, and the number: `-$5` is `$` and `-5`."""
    for mark, plain in _SIGNS.items():
        text = text.replace(mark, plain)
    signs = [character for character in text if character == "%" or unicodedata.category(character) == "Sc"]
    if len(signs) != 1:
        return "", text
    before, after = (part.strip() for part in text.split(signs[0]))
    if before in ("", "-", "+"):
        return signs[0], before + after
    return (signs[0], before) if not after else ("", text)


def form_of(cells: list[Any]) -> tuple[NumberForm, int]:
    """How most cells of a column write numbers, and how many of them do; none of them is missing.

    A column is of one style and one sign: where some cells have `%` and others have none, as where `€1.200` may be a
    thousand or one and a fifth, nobody can say what is meant, and no cell counts.
    """
    plain = int((~numpy.isnan(numbers_of(cells))).sum())
    if plain == len(cells):
        return PLAIN_FORM, plain
    texts = [text_of(cell) or "" for cell in cells]
    values = set(map(category, texts))
    if values & set(FLAGS) and values <= {*FLAGS, "0", "1"}:
        return {"style": FLAG, "sign": ""}, len(cells)
    found = [_bare(text) for text in texts]
    signs = Counter(sign for sign, _ in found)
    named = [sign for sign in signs if sign]
    sign = named[0] if len(named) == 1 else ""
    forms: list[NumberForm] = [{"style": style, "sign": sign} for style in STYLES]
    counts = [int((~numpy.isnan(numbers_of(texts, form))).sum()) for form in forms]
    best = max(range(len(forms)), key=lambda place: counts[place])
    with_sign = [rest for mark, rest in found if mark]
    torn = sign == "%" and any(not mark and rest != "0" and not math.isnan(number(rest)) for mark, rest in found)
    either = forms[best]["style"] == PLAIN and bool(with_sign) and all(map(_EITHER.fullmatch, with_sign))
    return (PLAIN_FORM, plain) if torn or either or counts[best] <= plain else (forms[best], counts[best])


def shown(form: NumberForm, cells: list[Any]) -> str:
    """How a column was read, for a note: one of its cells that shows it; nothing for plain numbers."""
    if form["style"] == FLAG:
        return "true/false"
    plain = numbers_of(cells)
    read = numbers_of(cells, form)
    odd = numpy.flatnonzero(numpy.isnan(plain) & ~numpy.isnan(read)).tolist()
    return f"{cells[odd[0]]!r} is {read[odd[0]]:.15g}" if odd else ""


def constant(cells: list[Any]) -> str | None:
    """Why a column says nothing, where all its cells are the same."""
    kinds = {None if is_missing(cell) else category(cell) for cell in cells}
    if len(kinds) > 1:
        return None
    (value,) = kinds
    return "always empty" if value is None else f"always {value!r}"


def counts_rows(cells: list[Any]) -> bool:
    """Whether a column numbers the rows, one by one but for those that went to other splits."""
    numbers = numbers_of(cells)
    whole = len(numbers) >= FEW and not numpy.isnan(numbers).any() and (numbers % 1 == 0).all()
    if not whole or abs(numbers[-1] - numbers[0]) >= 2 * len(numbers):
        return False
    steps = numpy.diff(numbers)
    return bool((steps > 0).all() or (steps < 0).all())


def orders_rows(numbers: numpy.ndarray) -> str | None:
    """Why a column of numbers may be a number of the row rather than something that is known of it.

    Args:
        numbers: (rows,) in the order of the file, those that are missing left out.
    """
    if len(numbers) < FEW:
        return None
    steps = numpy.diff(numbers)
    if (steps > 0).all() or (steps < 0).all():
        return f"it {'rises' if steps[0] > 0 else 'falls'} from row to row"
    whole = len(numbers) >= MANY and (numbers % 1 == 0).all() and numpy.ptp(numbers) < 4 * len(numbers)
    return (
        "no two rows have the same, and hardly a number is left out"
        if whole and len(numpy.unique(numbers)) == len(numbers)
        else None
    )
