"""How far probabilities are from the truth: calibration, perplexity; and which labels are taken for which.

Needs no `evaluate`, which takes seconds to import: reports and every task read it.
"""

import math
from typing import Any

import numpy

BINS = 15
WHOLE = 100  # labels whose matrix is kept as a whole: of 1,000 labels it would be a million numbers
SHOWN = 20  # labels that a page has room for


def calibration(scores: numpy.ndarray, right: numpy.ndarray) -> tuple[float, list[dict[str, float]]]:
    """The expected calibration error (Guo et al. 2017), and what it is made of: are 80% of rows with score 0.8 right?

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


def confusion(references: list[str], predictions: list[str], labels: list[str]) -> dict[str, Any]:
    """`labels` and `matrix`, a row a right label and a column a given one; of more than WHOLE labels the worst."""
    from sklearn.metrics import confusion_matrix

    found = {"labels": labels, "matrix": confusion_matrix(references, predictions, labels=labels).tolist()}
    return found if len(labels) <= WHOLE else most_confused(found)


def most_confused(found: dict[str, Any]) -> dict[str, Any]:
    """The part of a confusion with the SHOWN labels that are most often right or given wrongly, in their order."""
    labels, matrix = found["labels"], numpy.array(found["matrix"])
    if len(labels) <= SHOWN:
        return found
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    kept = sorted(numpy.argsort(-wrong, kind="stable")[:SHOWN].tolist())
    return {
        "labels": [labels[place] for place in kept],
        "matrix": matrix[numpy.ix_(kept, kept)].tolist(),
        "of": found.get("of", len(labels)),
    }


def perplexity(loss: float) -> float:
    """The exponential of a mean cross entropy in nats: among how many tokens a model is as unsure as if it drew one.

    1e304 for a loss above 700, since e to the power of 710 is above the largest float.
    """
    return math.exp(min(loss, 700.0))
