"""How far scores are from shares: of the rows with a score of 0.8, are 80% right?"""

from typing import Any

import numpy

BINS = 15


def calibration(scores: numpy.ndarray, right: numpy.ndarray) -> tuple[float, list[dict[str, float]]]:
    """The expected calibration error (Guo et al. 2017), and what it is made of.

    Args:
        scores: (n,), between 0 and 1.
        right: (n,), whether what the score is of was so.

    Returns:
        sum over 15 bins of equal width of (rows in the bin / n) * |mean score - share that is right|; and for each bin
        that is not empty its mean `score`, the share that is `right`, and its number of `rows`.
    """
    places = numpy.clip(numpy.ceil(scores * BINS).astype(int) - 1, 0, BINS - 1)  # a bin holds its upper bound
    rows = numpy.bincount(places, minlength=BINS)
    filled = rows > 0
    count = rows[filled]
    said = numpy.bincount(places, weights=scores, minlength=BINS)[filled] / count
    true = numpy.bincount(places, weights=right.astype(float), minlength=BINS)[filled] / count
    bins = [{"score": float(s), "right": float(t), "rows": int(n)} for s, t, n in zip(said, true, count, strict=True)]
    return float((count * numpy.abs(said - true)).sum() / max(len(scores), 1)), bins


def before_and_after(
    after: tuple[numpy.ndarray, numpy.ndarray], before: tuple[numpy.ndarray, numpy.ndarray] | None
) -> dict[str, Any]:
    """`ece` and `reliability` of (scores, right); and of the scores as they were before a temperature, if there is one.

    Bins without rows are left out.
    """
    error, bins = calibration(*after)
    found: dict[str, Any] = {"ece": error, "reliability": {"after": bins}}
    if before is not None:
        error, bins = calibration(*before)
        found["ece_uncalibrated"] = error
        found["reliability"]["before"] = bins
    return found
