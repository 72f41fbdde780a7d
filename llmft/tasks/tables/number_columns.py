"""Columns of numbers: their format, columns that carry no information, and the scaling of values."""

import math
import re
import unicodedata
from collections import Counter
from functools import partial
from typing import Any, Literal, TypedDict

import numpy
from scipy.special import ndtri

from llmft.data.cell_values import FLAGS, NUMBER, category, is_missing, number, text_of

FEW = 20  # rows: with fewer, numbers that count upwards may do so by chance
MANY = 50  # rows: of so many whole numbers drawn from four times as many, one in 500 draws has no two alike
MOSTLY = 0.8  # share of cells from which on a column is one of numbers except for a few

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
_DIGIT = re.compile("[0-9]")
_CODE = re.compile(r"0[0-9]{2,}")
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
    """Cells as float64 (rows,); NaN for what is not a finite number of this form.

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
    values = set(map(category, set(texts)))
    if values & set(FLAGS) and values <= {*FLAGS, "0", "1"}:
        return {"style": FLAG, "sign": ""}, len(cells)
    if not any(_DIGIT.search(value or "") for value in values):  # names: six styles would be tried for nothing
        return PLAIN_FORM, plain
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


def first_code(cells: list[Any]) -> str | None:
    """The first text that begins with 0 and has three digits or more, as postal codes do; None if there is none.

    Two digits do not count: months and hours are written `08`, and are numbers.
    """
    texts = (cell.strip() for cell in cells if isinstance(cell, str))
    return next((text for text in texts if _CODE.fullmatch(text)), None)


def constant(cells: list[Any]) -> str | None:
    """Why a column carries no information: all its cells are the same. None if they differ."""
    kinds = {None if is_missing(cell) else category(cell) for cell in cells}
    if len(kinds) > 1:
        return None
    (value,) = kinds
    return "always empty" if value is None else f"always {value!r}"


def counts_rows(cells: list[Any]) -> bool:
    """Whether a column numbers the rows, one by one except for those that went to other splits."""
    numbers = numbers_of(cells)
    whole = len(numbers) >= FEW and not numpy.isnan(numbers).any() and (numbers % 1 == 0).all()
    if not whole or abs(numbers[-1] - numbers[0]) >= 2 * len(numbers):
        return False
    steps = numpy.diff(numbers)
    return bool((steps > 0).all() or (steps < 0).all())


def orders_rows(numbers: numpy.ndarray) -> str | None:
    """Why a column may number the rows, and be no property of them; None if it does not look so.

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


Scaling = Literal["standard", "quantile"]

QUANTILES = 257  # of each column: steps of 0.4%, and a file of a few kB
FARTHEST = 5.0  # standard deviations: where the normal distribution puts what lies beyond all training rows


def learn_scale(values: numpy.ndarray, how: Scaling) -> list[float]:
    """What `scaled` needs of a column: its mean and deviation, or its quantiles.

    Args:
        values: (rows,) of the training rows, those that are missing left out.
    """
    if how == "quantile":
        count = min(QUANTILES, max(len(values), 2))
        return list(numpy.quantile(values, numpy.linspace(0, 1, count)).tolist()) if len(values) else [0.0, 0.0]
    if not len(values) or (values == values[0]).all():
        # One value has no deviation, though rounding may give one of 1e-17; 1 keeps it at zero.
        return [float(values[0]) if len(values) else 0.0, 1.0]
    return [float(numpy.mean(values)), float(numpy.std(values))]


def scaled(values: numpy.ndarray, scale: list[float], how: Scaling) -> numpy.ndarray:
    """Values (rows,) on their new scale; NaN stays NaN.

    `quantile`: the share of training rows below a value, turned into the value of the normal distribution with as much
    below it. Of a value that many rows have, the middle of its shares is taken. scikit-learn's QuantileTransformer does
    the same except for the least and the largest value, which it puts farthest out even if they are the most frequent.
    """
    if how == "standard":
        mean, deviation = scale
        return (values - mean) / deviation
    quantiles, shares = numpy.array(scale), numpy.linspace(0, 1, len(scale))
    upper = numpy.interp(values, quantiles, shares)
    lower = -numpy.interp(-values, -quantiles[::-1], -shares[::-1])
    return numpy.clip(ndtri((lower + upper) / 2), -FARTHEST, FARTHEST)


def bin_edges(values: numpy.ndarray, bins: int) -> list[float]:
    """Where the bins of a column meet, ascending, at least two: bins of as many training rows each, or nearly.

    A value of more rows than a bin should have is an edge, and the others share the rest, so that the few who have a
    gain or a loss at all are told apart. Edges are a millionth apart at least, since a model computes in float32.

    Args:
        values: (rows,) of the training rows, scaled, those that are missing left out.
        bins: at most.
    """
    distinct, counts = numpy.unique(values.round(6).astype(numpy.float32), return_counts=True)
    if len(distinct) > bins + 1:
        often = counts * bins > len(values)
        rest = numpy.repeat(distinct[~often], counts[~often])
        shares = numpy.linspace(0, 1, bins + 1 - int(often.sum()))
        distinct = numpy.unique([*distinct[often], *numpy.quantile(rest, shares, method="nearest")])
    edges: list[float] = distinct.tolist()
    return edges if len(edges) > 1 else [*(edges or [0.0]), (edges[0] if edges else 0.0) + 1.0]
