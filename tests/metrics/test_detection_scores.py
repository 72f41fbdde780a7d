"""COCO's scores: by hand, and equal to pycocotools."""

import contextlib
import io
from typing import Any

import numpy
import pytest

pytest.importorskip("faster_coco_eval")

from llmft.metrics.detection_metrics import DIGITS, SUMMARY, _dataset, _detections, detection_scores, matches, overlaps

LABELS = ["cat", "dog"]


def box(label: str, *sides: float, crowd: bool = False, **more: Any) -> dict[str, Any]:
    return {"box": list(sides), "label": label, "crowd": crowd, **more}


def test_by_hand() -> None:
    """Two cats; the surest box is wrong, then one cat is found exactly, the other at an overlap of 0.64."""
    right = [[box("cat", 0, 0, 50, 50), box("cat", 100, 100, 50, 50)]]
    found = [[[300, 300, 50, 50, 0.9, 0], [0, 0, 50, 50, 0.8, 0], [100, 100, 40, 40, 0.7, 0]]]
    scores = detection_scores(found, right, LABELS)
    # Up to an overlap of 0.6: after 3 boxes both are found, and the precision of 2/3 is the highest at every recall.
    assert scores["map50"] == pytest.approx(2 / 3)
    # From 0.65 on, one of two: 1/2 up to a recall of 0.5, which is 51 of 101 points.
    assert scores["map75"] == pytest.approx(51 / 101 / 2)
    assert scores["map"] == pytest.approx((3 * 2 / 3 + 7 * 51 / 101 / 2) / 10)
    assert scores["ar100"] == pytest.approx((3 * 1 + 7 * 0.5) / 10)
    assert scores["ar1"] == 0  # the surest box is wrong
    assert scores["per_class"] == {"cat": {"map": scores["map"], "map50": scores["map50"]}}
    assert scores["curves"]["cat"] == pytest.approx([2 / 3] * 21)
    # 2,500 pixels are medium: from 32 x 32 to 96 x 96.
    assert scores["map_medium"] == scores["map"]
    assert "map_small" not in scores


def test_nothing_found_and_nothing_there() -> None:
    right = [[box("cat", 0, 0, 50, 50)], []]
    assert detection_scores([[], []], right, LABELS)["map"] == 0
    # Without any box the figures that select a checkpoint are 0 all the same.
    scores = detection_scores([[[0, 0, 5, 5, 0.9, 0]]], [[]], LABELS)
    assert (scores["map"], scores["map50"], scores["map75"], scores["ar100"]) == (0, 0, 0, 0)


def test_a_box_in_a_crowd_is_neither_right_nor_wrong() -> None:
    right = [[box("cat", 0, 0, 20, 20), box("cat", 100, 100, 100, 100, crowd=True)]]
    found = [[[0, 0, 20, 20, 0.5, 0], [110, 110, 20, 20, 0.9, 0], [150, 150, 20, 20, 0.8, 0]]]
    assert detection_scores(found, right, LABELS)["map"] == pytest.approx(1)
    answer = [{"box": each[:4], "label": "cat", "score": each[4]} for each in found[0]]
    assert matches(answer, right[0]) == (1, 0, 0)


def test_the_size_is_that_of_the_object_where_it_is_known() -> None:
    right = [[box("cat", 0, 0, 50, 50, area=900)]]
    scores = detection_scores([[[0, 0, 50, 50, 0.9, 0]]], right, LABELS)
    assert scores["map_small"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools_to_the_last_digit(seed: int) -> None:
    """Of boxes of all sizes with crowds and many equal scores."""
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = numpy.random.default_rng(seed)
    right: list[list[dict[str, Any]]] = []
    found: list[list[list[float]]] = []
    for _ in range(30):
        boxes = [
            box(LABELS[rng.integers(2)], *map(float, (*rng.integers(0, 200, 2), *rng.choice([9, 40, 120], 2))),
                crowd=bool(rng.random() < 0.2))
            for _ in range(rng.integers(0, 7))
        ]  # fmt: skip
        near = [each for each in boxes for _ in range(rng.integers(0, 3))]
        right.append(boxes)
        found.append(
            [
                [*(numpy.array(each["box"]) + rng.integers(-3, 4, 4)), round(rng.random(), 1), rng.integers(2)]
                for each in near
            ]
        )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _dataset(right, LABELS)
        truth.createIndex()
        theirs = COCOeval(truth, truth.loadRes(_detections(found)), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    ours = detection_scores(found, right, LABELS)
    expected = {
        name: round(float(value), DIGITS) for name, value in zip(SUMMARY, theirs.stats, strict=True) if value >= 0
    }
    assert {name: value for name, value in ours.items() if name in SUMMARY} == expected


def test_overlaps() -> None:
    boxes = numpy.array([[0, 0, 10, 10], [5, 5, 10, 10]])
    assert overlaps(boxes, boxes) == pytest.approx(numpy.array([[1, 25 / 175], [25 / 175, 1]]))
    assert overlaps(boxes, numpy.array([[50, 50, 1, 1]])).tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([], (0, 0, 2)),
        ([("cat", 0, 0, 10, 10, 0.9)], (1, 0, 1)),
        ([("cat", 0, 0, 10, 10, 0.9), ("cat", 1, 0, 10, 10, 0.8)], (1, 1, 1)),  # the second finds none that is free
        ([("dog", 0, 0, 10, 10, 0.9)], (0, 1, 2)),  # a class of its own
        ([("cat", 0, 0, 10, 20, 0.9), ("dog", 30, 0, 10, 11, 0.1)], (2, 0, 0)),  # an overlap of exactly a half counts
    ],
)
def test_matches(answer: list[tuple[Any, ...]], expected: tuple[int, int, int]) -> None:
    right = [box("cat", 0, 0, 10, 10), box("dog", 30, 0, 10, 10)]
    boxes = [{"label": label, "box": sides[:4], "score": sides[4]} for label, *sides in answer]
    assert matches(boxes, right) == expected
