"""COCO's scores of boxes over a whole split (https://cocodataset.org/#detection-eval), by faster-coco-eval.

They equal those of pycocotools. A mean over batches is not mAP: precision depends on the order of all boxes.
"""

from collections.abc import Sequence
from typing import Any

import numpy

from llmft.schema.problem import UserError, missing_package

SUMMARY = (
    *("map", "map50", "map75", "map_small", "map_medium", "map_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)
"""COCO's twelve figures in its order. ar100 is the recall with at most 100 boxes an image, a mean over classes and
overlaps. Small is up to 32 x 32 pixels, medium up to 96 x 96."""
DIGITS = 12
"""Decimals of a figure. pycocotools adds 2e-16 to the count of boxes before it divides, so that the 16th may differ."""
ALWAYS = ("map", "map50", "map75", "ar100")
"""Figures that are 0 for a split without boxes, so that one of them can select a checkpoint."""
POINTS = 101  # recalls at which COCO takes the precision
MATCHED = 0.5  # overlap (intersection over union) from which a box counts as found, for a single row


def check_package() -> None:
    """Raise UserError if faster-coco-eval is not installed."""
    if problems := missing_package("task.name", "task=object_detection", "faster_coco_eval", "vision"):
        raise UserError(problems)


def detection_scores(
    found: Sequence[Sequence[Sequence[float]]],
    references: Sequence[Sequence[dict[str, Any]]],
    labels: Sequence[str],
) -> dict[str, Any]:
    """COCO's figures; `per_class` has `map` and `map50`, and `curves` the precision at recalls of 0, 0.05, ... 1.

    Args:
        found: by image, boxes as (x, y, width, height, score, number of the class).
        references: by image, `{"box": [x, y, width, height], "label": ..., "crowd": ..., "area": ...}`. A crowd is an
            area in which boxes are neither right nor wrong. `area` decides the size; it is that of the box if absent.
        labels: the names of the classes.

    Returns:
        figures by name. One is left out where no box is of its kind, such as a small one; curves are at an overlap of
        0.5.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(_dataset(references, labels))
    # loadRes does not take an empty list, which is a valid answer.
    detections = _detections(found)
    boxes = truth.loadRes(detections) if len(detections) else COCO(_dataset([[] for _ in references], labels))
    counted = COCOeval_faster(truth, boxes, "bbox", print_function=lambda *_: None)
    counted.evaluate()
    counted.accumulate()
    counted.summarize()
    scores: dict[str, Any] = dict.fromkeys(ALWAYS, 0.0)
    figures = zip(SUMMARY, counted.stats[: len(SUMMARY)], strict=True)
    scores |= {name: round(float(value), DIGITS) for name, value in figures if value >= 0}  # -1: there is no such box
    # (overlaps, recalls, classes, sizes, limits); -1 for a class without boxes
    precision = counted.eval["precision"]
    scores |= {"per_class": {}, "curves": {}}
    for number, name in enumerate(labels):
        mine = precision[:, :, number, 0, -1]
        if (mine >= 0).any():
            means = {"map": mine.mean(), "map50": mine[0].mean()}
            scores["per_class"][name] = {key: round(float(value), DIGITS) for key, value in means.items()}
            scores["curves"][name] = [round(float(value), DIGITS) for value in mine[0, :: (POINTS - 1) // 20]]
    return scores


def _dataset(references: Sequence[Sequence[dict[str, Any]]], labels: Sequence[str]) -> dict[str, Any]:
    """The right boxes as a COCO file. Ids begin at 1: a box with the id 0 counts as not found, in pycocotools too."""
    numbers = {name: number for number, name in enumerate(labels, 1)}
    annotations: list[dict[str, Any]] = []
    for picture, boxes in enumerate(references, 1):
        for part in boxes:
            if part["label"] not in numbers:  # a crowd of a class that the model does not know
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture,
                    "category_id": numbers[part["label"]],
                    "bbox": list(part["box"]),
                    "area": part.get("area", part["box"][2] * part["box"][3]),
                    "iscrowd": int(part["crowd"]),
                }
            )
    return {
        "info": {},
        "images": [{"id": number} for number in range(1, len(references) + 1)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }


def _detections(found: Sequence[Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    return [
        {"image_id": picture, "category_id": int(number) + 1, "bbox": [x, y, width, height], "score": score}
        for picture, boxes in enumerate(found, 1)
        for x, y, width, height, score, number in boxes
    ]


def overlaps(boxes: numpy.ndarray, others: numpy.ndarray) -> numpy.ndarray:
    """Intersection over union of each of (n, 4) boxes with each of (m, 4): (n, m). Boxes are x, y, width, height."""
    boxes, others = boxes.reshape(-1, 1, 4), others.reshape(1, -1, 4)
    low = numpy.maximum(boxes[..., :2], others[..., :2])
    high = numpy.minimum(boxes[..., :2] + boxes[..., 2:], others[..., :2] + others[..., 2:])
    shared = (high - low).clip(min=0).prod(axis=-1)
    whole = boxes[..., 2:].prod(axis=-1) + others[..., 2:].prod(axis=-1) - shared
    return shared / numpy.maximum(whole, 1e-12)


def matches(answer: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]) -> tuple[int, int, int]:
    """How many boxes of one image are right, too many, and missing.

    Boxes are taken by falling score; each finds the free box of its class that it overlaps most, by at least MATCHED.
    A box that lies in a crowd, and a crowd that is not found, do not count.
    """
    crowds = [part for part in reference if part["crowd"]]
    free = [part for part in reference if not part["crowd"]]
    right = extra = 0
    for box in sorted(answer, key=lambda part: -part["score"]):
        mine = numpy.array(box["box"], dtype=float)
        same = [number for number, part in enumerate(free) if part["label"] == box["label"]]
        shared = overlaps(mine, numpy.array([free[number]["box"] for number in same], dtype=float)) if same else None
        if shared is not None and shared.max() >= MATCHED:
            free.pop(same[int(shared.argmax())])
            right += 1
        elif not any(part["label"] == box["label"] and _within(mine, part["box"]) >= MATCHED for part in crowds):
            extra += 1
    return right, extra, len(free)


def _within(box: numpy.ndarray, crowd: Sequence[float]) -> float:
    """The share of a box that lies in a crowd."""
    low = numpy.maximum(box[:2], crowd[:2])
    high = numpy.minimum(box[:2] + box[2:], numpy.array(crowd[:2]) + crowd[2:])
    return float((high - low).clip(min=0).prod() / max(box[2:].prod(), 1e-12))
