"""What is learned from validation rows after training: the temperature of the scores, and thresholds."""

from collections.abc import Callable
from typing import Literal

import numpy

Array = numpy.ndarray
Counts = Callable[[Array, Array, Array, Array], Array]
"""From true positives, false positives, false negatives, and true negatives to a metric, elementwise."""


def softmax(logits: Array) -> Array:
    """Probabilities of the classes of each row; (rows, classes) both."""
    # The largest logit is subtracted, so that exp() does not overflow above 709.
    powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-z)); the exponential is of -|z|, so that it does not overflow."""
    small = numpy.exp(-numpy.abs(logits))
    return numpy.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def temperature(loss: Callable[[float], float]) -> float:
    """The temperature between 0.1 and 10 with the smallest loss of the divided logits (Guo et al. 2017).

    If the loss is smallest at an end, the rows do not determine a temperature, and it is 1: all answers are right, or
    the logits tell nothing.
    """
    from scipy.optimize import minimize_scalar  # 0.6 s to import, which runs without calibration save

    ends = (0.1, 10.0)
    # The logarithm is searched, so that 0.5 and 2 are equally far from 1.
    found = float(numpy.exp(minimize_scalar(lambda log: loss(float(numpy.exp(log))), bounds=numpy.log(ends)).x))
    return 1.0 if min(map(loss, ends)) <= loss(found) else found


def _f1(tp: Array, fp: Array, fn: Array, _: Array) -> Array:
    return _share(2 * tp, 2 * tp + fp + fn)


def _f1_of_both(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    return (_f1(tp, fp, fn, tn) + _f1(tn, fn, fp, tp)) / 2


def _accuracy(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    return (tp + tn) / (tp + fp + fn + tn)


def _matthews(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    # The root of each factor on its own: the product of four counts of a million passes 2^63.
    below = numpy.sqrt(tp + fp) * numpy.sqrt(tp + fn) * numpy.sqrt(tn + fp) * numpy.sqrt(tn + fn)
    return _share(tp * tn - fp * fn, below)


def _share(part: Array, whole: Array) -> Array:
    return numpy.divide(part, whole, out=numpy.zeros(len(whole)), where=whole > 0)


# With two labels, f1 is the mean over both, like the metric `f1`; with multi_label, each label has its own.
OF_TWO: dict[str, Counts] = {"f1": _f1_of_both, "accuracy": _accuracy, "matthews": _matthews}
OF_EACH: dict[str, Counts] = {"f1": _f1, "accuracy": _accuracy, "matthews": _matthews}


def threshold(scores: Array, truth: Array, measure: Counts) -> float:
    """The score from which a row is positive, so that `measure` is best: halfway between two scores, nearest to 0.5.

    Args:
        scores: (rows,), between 0 and 1.
        truth: (rows,), whether a row is positive. If all rows or none are, there is nothing to learn: 0.5.
    """
    if truth.all() or not truth.any():
        return 0.5
    order = numpy.argsort(-scores, kind="stable")
    ranked, hits = scores[order], truth[order].astype(float)
    # A threshold makes the first k rows positive; k counts only if the k-th score differs from the next.
    last = numpy.flatnonzero(ranked[:-1] > ranked[1:])
    tp, said = hits.cumsum()[last], last + 1.0
    yes, rows = hits.sum(), float(len(hits))
    values = measure(tp, said - tp, yes - tp, rows - yes - (said - tp))
    # Halfway, not at a score: new rows rarely have exactly the scores of these.
    middles = (ranked[last] + ranked[last + 1]) / 2
    if not len(values):
        return 0.5
    best = middles[values >= values.max() - 1e-12]  # equal but for rounding
    return float(best[numpy.abs(best - 0.5).argmin()])


def best_threshold(
    scores: Array, truth: Array, wanted: float | Literal["f1", "accuracy", "matthews"], measures: dict[str, Counts]
) -> float:
    """`task.threshold` if it is a number, else the threshold that is best for its metric."""
    return threshold(scores, truth, measures[wanted]) if isinstance(wanted, str) else wanted
