"""Numbers brought to one scale: by mean and deviation, or by quantiles to the normal distribution; and their bins."""

from typing import Literal

import numpy
from scipy.special import ndtri

Scaling = Literal["standard", "quantile"]

QUANTILES = 257  # of each column: steps of 0.4%, and a file of a few kB
FARTHEST = 5.0  # standard deviations: where the normal distribution puts what lies beyond all training rows


def learn(values: numpy.ndarray, how: Scaling) -> list[float]:
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


def scaled(values: numpy.ndarray, learnt: list[float], how: Scaling) -> numpy.ndarray:
    """Values (rows,) on their new scale; NaN stays NaN.

    `quantile`: the share of training rows below a value, turned into the value of the normal distribution with as much
    below it. Of a value that many rows have, the middle of its shares is taken. scikit-learn's QuantileTransformer does
    the same but for the least and the largest value, which it puts farthest out even if they are the most frequent.
    """
    if how == "standard":
        mean, deviation = learnt
        return (values - mean) / deviation
    quantiles, shares = numpy.array(learnt), numpy.linspace(0, 1, len(learnt))
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
