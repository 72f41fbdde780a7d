"""Cells of a table: what is missing, what is a number, and which columns say nothing."""

import math
from typing import Any

import numpy

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
FEW = 20  # rows: with fewer, numbers that count upwards may do so by chance


def is_missing(cell: Any) -> bool:
    """Whether a cell says nothing."""
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING) or cell != cell


def numbers_of(cells: list[Any]) -> numpy.ndarray:
    """Cells as float64 (rows,); NaN for what is no finite number."""
    return numpy.fromiter(map(_number, cells), dtype=float, count=len(cells))


def _number(cell: Any) -> float:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def written(cell: Any) -> str:
    """A category as text. 1.0 is 1: one empty cell makes a parquet column of whole numbers one of fractions."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def constant(cells: list[Any]) -> str | None:
    """Why a column says nothing, where all its cells are the same."""
    kinds = {None if is_missing(cell) else str(cell) for cell in cells}
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
