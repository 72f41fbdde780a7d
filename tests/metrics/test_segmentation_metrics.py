"""Metrics of masks, against values worked out by hand."""

import numpy
import pytest
from sklearn.metrics import f1_score, jaccard_score

from llmft.metrics.segmentation_metrics import confusion_of, overlaps_of, segmentation_metrics

LABELS = ["background", "cell", "dirt"]


def confusion(answer: list[list[int]], reference: list[list[int]]) -> numpy.ndarray:
    return confusion_of(numpy.array(answer, numpy.uint8), numpy.array(reference, numpy.uint8), 3)


def test_pixels_of_no_label_are_not_counted() -> None:
    found = confusion([[0, 1, 1], [2, 2, 0]], [[0, 1, 255], [1, 2, 255]])
    assert found.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_pooled_scores_by_hand() -> None:
    one = confusion([[0, 0, 1, 1]], [[0, 1, 1, 1]])
    other = confusion([[1, 0]], [[0, 0]])
    found = segmentation_metrics([one, other], LABELS, True)
    # Of cells 2 pixels are right, 1 was missed, 1 was made up; of the background 2, 1, and 1. No image has dirt.
    assert found["iou"] == pytest.approx(2 / 4)
    assert found["dice"] == pytest.approx(4 / 6)
    assert found["mean_iou"] == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert found["pixel_accuracy"] == pytest.approx(4 / 6)
    # By image: 2 of 3 pixels, and a cell where there is none.
    assert found["iou_by_image"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["dice_by_image"] == pytest.approx((4 / 5 + 0) / 2)
    assert found["per_class"]["cell"] == {
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "iou": pytest.approx(1 / 2),
        "support": 3,
    }
    assert list(found["per_class"]) == ["background", "cell"]
    assert found["confusion"] == {"labels": LABELS, "matrix": [[2, 1, 0], [1, 2, 0], [0, 0, 0]]}


def test_an_image_with_nothing_in_it_is_right_if_nothing_is_found() -> None:
    found = segmentation_metrics([confusion([[0, 0]], [[0, 0]])], LABELS, True)
    assert (found["iou"], found["dice"], found["iou_by_image"]) == (1.0, 1.0, 1.0)


def test_an_image_without_any_label_is_right() -> None:
    found = segmentation_metrics([confusion([[1, 2]], [[255, 255]])], LABELS, False)
    assert found["mean_iou"] == 1.0
    assert found["pixel_accuracy"] == 0.0
    assert found["per_class"] == {}


def test_without_a_background_all_labels_count_alike() -> None:
    one = confusion([[0, 0, 1, 1]], [[0, 1, 1, 1]])
    found = segmentation_metrics([one], LABELS, False)
    assert found["iou"] == found["mean_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_iou_and_dice_are_those_of_scikit_learn() -> None:
    rng = numpy.random.default_rng(0)
    answer, reference = rng.integers(0, 3, (2, 40, 30)).astype(numpy.uint8)
    iou, dice = overlaps_of(confusion_of(answer, reference, 3))
    assert iou == pytest.approx(jaccard_score(reference.ravel(), answer.ravel(), average=None))
    assert dice == pytest.approx(f1_score(reference.ravel(), answer.ravel(), average=None))
