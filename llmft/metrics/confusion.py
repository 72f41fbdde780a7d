"""Which labels are taken for which."""

from typing import Any

import numpy
from sklearn.metrics import confusion_matrix

WHOLE = 100  # labels whose matrix is kept as a whole: of 1,000 labels it would be a million numbers
SHOWN = 20  # labels that a page has room for


def confusion(references: list[str], predictions: list[str], labels: list[str]) -> dict[str, Any]:
    """`labels` and `matrix`, a row a right label and a column a given one; of more than WHOLE labels the worst."""
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
