"""Metrics of masks: how far the regions of an answer and of its reference overlap, from counts of pixels."""

from collections.abc import Sequence
from typing import Any

import numpy

from llmft.metrics.calibration import WHOLE, most_confused
from llmft.schema.tasks import IGNORED_PIXEL


def confusion_of(answer: numpy.ndarray, reference: numpy.ndarray, classes: int) -> numpy.ndarray:
    """How many pixels of each class were taken for which.

    Args:
        answer: (height, width) indices of classes, uint8.
        reference: the same size. Pixels of IGNORED_PIXEL are left out.

    Returns:
        (classes, classes) int64: the rows are the classes of the reference, the columns those of the answer.
    """
    counted = reference != IGNORED_PIXEL
    pairs = reference[counted].astype(numpy.int64) * classes + answer[counted]
    return numpy.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def overlaps_of(confusion: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The IoU and the Dice of each class; NaN for a class that neither the references nor the answers have.

    IoU, the Jaccard index, is the intersection divided by the union, Dice is twice the intersection divided by the sum
    of both areas: IoU = TP / (TP + FP + FN) and Dice = 2 TP / (2 TP + FP + FN), which is F1 of pixels.

    Args:
        confusion: (..., classes, classes) as of `confusion_of`, or a sum of them.

    Returns:
        two arrays (..., classes).
    """
    hits = numpy.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    areas = (confusion.sum(axis=-1) + confusion.sum(axis=-2)).astype(float)
    with numpy.errstate(invalid="ignore"):
        return hits / (areas - hits), 2 * hits / areas


def mean_of_found(values: numpy.ndarray) -> float:
    """The mean of the numbers that are not NaN; 1 if all are: there was nothing to find, and nothing was found."""
    found = values[~numpy.isnan(values)]
    return float(found.mean()) if len(found) else 1.0


def segmentation_metrics(
    confusions: Sequence[numpy.ndarray], labels: Sequence[str], background: bool
) -> dict[str, Any]:
    """The metrics of a split.

    `iou`, `dice`, `mean_iou`, and `pixel_accuracy` are of the sum of all confusions, so that a large image weighs more
    than a small one. `iou_by_image` and `dice_by_image` are means over the images of the same numbers. `mean_iou` is
    the mean over all classes; IoU and Dice leave out the background, which is nearly always right. A class that
    neither the references nor the answers have is left out of the means.

    Args:
        confusions: of each image, by `confusion_of`.
        labels: the names of the classes in the order of their indices.
        background: whether the first class is one that all but `mean_iou` and `pixel_accuracy` leave out.
    """
    each = numpy.asarray(confusions)  # (images, classes, classes)
    total = each.sum(axis=0)
    iou, dice = overlaps_of(total)
    matrix: dict[str, Any] = {"labels": list(labels), "matrix": total.tolist()}
    by_image = [found[:, background:] for found in overlaps_of(each)]
    return {
        "iou": mean_of_found(iou[background:]),
        "dice": mean_of_found(dice[background:]),
        "mean_iou": mean_of_found(iou),
        "pixel_accuracy": float(numpy.trace(total) / max(total.sum(), 1)),
        "iou_by_image": float(numpy.mean([mean_of_found(row) for row in by_image[0]])),
        "dice_by_image": float(numpy.mean([mean_of_found(row) for row in by_image[1]])),
        "per_class": _per_class(total, labels, iou),
        "confusion": most_confused(matrix) if len(labels) > WHOLE else matrix,
    }


def _per_class(total: numpy.ndarray, labels: Sequence[str], iou: numpy.ndarray) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 (which is Dice), IoU, and the number of pixels of each class that occurs."""
    found = {}
    for number, label in enumerate(labels):
        hits, said, there = total[number, number], total[:, number].sum(), total[number].sum()
        if said or there:
            found[label] = {
                "precision": float(hits / max(said, 1)),
                "recall": float(hits / max(there, 1)),
                "f1": float(2 * hits / (said + there)),
                "iou": float(iou[number]),
                "support": int(there),
            }
    return found
