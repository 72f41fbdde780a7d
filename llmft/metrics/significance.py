"""Significance tests: do two models differ on the same rows, or only by chance?"""

from typing import Any

import numpy
from scipy.stats import binomtest

LEVEL = 0.05  # of significance, the convention of the field
RESAMPLES = 10_000  # p values of 0.05 then have a standard error of 0.003
AT_ONCE = 1_000_000  # row indices drawn at once, 8 MB


def mcnemar(first: numpy.ndarray, second: numpy.ndarray) -> dict[str, Any]:
    """The exact test of McNemar (1947), for rows that are right or wrong.

    Only rows count where exactly one model is right. If the models are equally good, each is right in half of those, so
    this is a two-sided binomial test.

    Args:
        first, second: (rows,) of each model, 1 for a right answer and 0 for a wrong one.

    Returns:
        `only_first` and `only_second`, the rows that only one model answers right, and `p`.
    """
    only_first, only_second = int((first > second).sum()), int((second > first).sum())
    differ = only_first + only_second
    p = float(binomtest(only_first, differ).pvalue) if differ else 1.0
    return {"test": "exact McNemar", "only_first": only_first, "only_second": only_second, "p": p}


def bootstrap(first: numpy.ndarray, second: numpy.ndarray, seed: int = 0) -> dict[str, Any]:
    """The paired bootstrap (Efron and Tibshirani 1993; Koehn 2004), for a metric that is a ratio of sums over rows.

    Rows are drawn with replacement, the same ones for both models. p is twice the share of draws whose difference has
    the other sign, with one draw added to numerator and denominator, so that it is never 0.

    Args:
        first, second: (rows, 2) of each model, the numerator and denominator of each row; see `tasks.task.RowScore`.

    Returns:
        the `difference`, second minus first, its 95% `interval`, and `p`.
    """
    generator = numpy.random.default_rng(seed)
    rows = len(first)
    found = []
    size = max(1, min(RESAMPLES, AT_ONCE // rows))
    for start in range(0, RESAMPLES, size):
        drawn = generator.integers(0, rows, (min(size, RESAMPLES - start), rows))
        found.append(_ratio(second[drawn].sum(axis=1)) - _ratio(first[drawn].sum(axis=1)))
    differences = numpy.concatenate(found)
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    low, high = numpy.quantile(differences, (0.025, 0.975))
    return {
        "test": "paired bootstrap",
        "difference": float(_ratio(second.sum(axis=0)) - _ratio(first.sum(axis=0))),
        "interval": [float(low), float(high)],
        "p": float(min(1.0, 2 * (tail + 1) / (RESAMPLES + 1))),
    }


def holm(values: list[float]) -> list[float]:
    """p values of several tests, adjusted by Holm (1979): the chance of any false positive stays at LEVEL."""
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


def score(parts: numpy.ndarray) -> float:
    """The metric over all rows, from (rows, 2) numerators and denominators."""
    return float(_ratio(parts.sum(axis=0)))


def _ratio(sums: numpy.ndarray) -> numpy.ndarray:
    """Numerator over denominator; 0 if the denominator is 0."""
    ratio: numpy.ndarray = sums[..., 0] / numpy.maximum(sums[..., 1], 1e-12)
    return ratio
