"""Calibration of probabilities, perplexity, and confusion matrices.

Does not import `evaluate`, which takes seconds, since reports and every task import this.
"""

import math
from typing import Any

import numpy

BINS = 15  # as in Guo et al. 2017
WHOLE = 100  # most labels whose whole confusion matrix is kept: for 1,000 labels it has a million numbers
SHOWN = 20  # labels for which a page has room


def calibration(scores: numpy.ndarray, right: numpy.ndarray) -> tuple[float, list[dict[str, float]]]:
    """The expected calibration error (Guo et al. 2017) and its bins: are 80% of the rows with score 0.8 right?

    Args:
        scores: (n,) in [0, 1].
        right: (n,) bool, whether the event that each score predicts occurred.

    Returns:
        the sum over 15 bins of equal width of (rows in the bin / n) * |mean score - share right|; and for each bin that
        is not empty its mean `score`, the share `right`, and its number of `rows`.
    """
    places = numpy.clip(numpy.ceil(scores * BINS).astype(int) - 1, 0, BINS - 1)  # bins are (lower, upper]
    rows = numpy.bincount(places, minlength=BINS)
    filled = rows > 0
    count = rows[filled]
    mean_score = numpy.bincount(places, weights=scores, minlength=BINS)[filled] / count
    share_right = numpy.bincount(places, weights=right.astype(float), minlength=BINS)[filled] / count
    bins = [
        {"score": float(s), "right": float(t), "rows": int(n)}
        for s, t, n in zip(mean_score, share_right, count, strict=True)
    ]
    return float((count * numpy.abs(mean_score - share_right)).sum() / max(len(scores), 1)), bins


def calibration_metrics(
    after: tuple[numpy.ndarray, numpy.ndarray], before: tuple[numpy.ndarray, numpy.ndarray] | None
) -> dict[str, Any]:
    """The metrics `ece` and `reliability` of (scores, right), and those before temperature scaling, if any."""
    error, bins = calibration(*after)
    found: dict[str, Any] = {"ece": error, "reliability": {"after": bins}}
    if before is not None:
        error, bins = calibration(*before)
        found["ece_uncalibrated"] = error
        found["reliability"]["before"] = bins
    return found


def confusion(references: list[str], predictions: list[str], labels: list[str]) -> dict[str, Any]:
    """`labels` and `matrix` with a row per reference and a column per prediction; above WHOLE labels, the worst."""
    from sklearn.metrics import confusion_matrix

    found = {"labels": labels, "matrix": confusion_matrix(references, predictions, labels=labels).tolist()}
    return found if len(labels) <= WHOLE else most_confused(found)


def most_confused(found: dict[str, Any]) -> dict[str, Any]:
    """The part of a confusion matrix for the SHOWN labels with the most errors, in the order of labels."""
    labels, matrix = found["labels"], numpy.array(found["matrix"])
    if len(labels) <= SHOWN:
        return found
    # Errors of a label: its row and its column without the diagonal, which is in both.
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    kept = sorted(numpy.argsort(-wrong, kind="stable")[:SHOWN].tolist())
    return {
        "labels": [labels[place] for place in kept],
        "matrix": matrix[numpy.ix_(kept, kept)].tolist(),
        "of": found.get("of", len(labels)),
    }


def perplexity(loss: float) -> float:
    """exp of a mean cross entropy in nats: a uniform choice among that many tokens is as uncertain as the model.

    1e304 for any loss above 700, since exp(710) is above the largest float.
    """
    return math.exp(min(loss, 700.0))
