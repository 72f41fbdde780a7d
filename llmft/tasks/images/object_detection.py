"""Boxes around objects in an image, each with a label and a score."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy
from PIL import Image

from llmft.data.checks import few
from llmft.data.images import Cell, as_array, name_of, open_image
from llmft.data.masks import upright_size
from llmft.data.source import Rows
from llmft.metrics.detection_metrics import check_package, detection_scores, matches, overlaps
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.explaining import NOTHING, Ask, of_surest
from llmft.tasks.images import config as sections
from llmft.tasks.images import shapes
from llmft.tasks.images.drawing import draw_boxes, shrunk
from llmft.tasks.images.occlusion import draw_weights, explain_image
from llmft.tasks.images.pixels import ImageState, encode_pixels, learn_pixels, place
from llmft.tasks.padding import Arrays
from llmft.tasks.task import Answer, Features, RowScore, Task

if TYPE_CHECKING:
    from datasets import Dataset

STEPS = numpy.arange(0.05, 0.96, 0.05)
"""Scores that are tried as `threshold`."""
SURE = 0.05  # the least score of a box that is compared with that of an exported model
UNTUNED = 0.5
"""The threshold where there are no validation rows."""


@dataclass
class DetectionState(ImageState):
    """How images become pixels, the labels, and the score from which a box is an answer."""

    labels: list[str] = None  # type: ignore[assignment]
    threshold: float = UNTUNED

    @property
    def description(self) -> str:
        return f"{plural(len(self.labels), 'labels')}: {', '.join(self.labels[:10])}"


class ObjectDetection(Task[DetectionState]):
    """Where are the cells, the faults, the cars, and what is each?"""

    config = sections.ObjectDetection
    head = "AutoModelForObjectDetection"
    state_class = DetectionState
    objective_class = "llmft.tasks.images.detection_objective:DetectionObjective"
    default_input_role = "image"
    reads = "boxes"
    no_answer = "nothing"
    only_scored = ("others",)
    options: sections.ObjectDetection

    @property
    def columns(self) -> dict[str, Column]:
        return {"image": Column("image"), "boxes": Column("json", target=True, blank=True)}

    def learn(self, train: "Dataset", model: ModelConfig) -> DetectionState:
        check_package()
        # Crowds are regions of many objects: nothing is learned of them, so their labels may be missing.
        counts = Counter(box["label"] for cell in train["boxes"] for box in boxes_of(cell) if not box["crowd"])
        if not counts:
            raise UserError(Problem("dataset.train", "must have boxes, and none of its images has one"), "the data")
        labels = self.options.labels or sorted(counts)
        # A name of a metric is turned into a number by `calibrate`, once the best weights are there.
        threshold = UNTUNED if isinstance(self.options.threshold, str) else self.options.threshold
        return DetectionState(labels=labels, threshold=threshold, **learn_pixels(self.options, model))

    def model_kwargs(self) -> dict[str, Any]:
        names = dict(enumerate(self.state.labels))
        return {
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: number for number, name in names.items()},
            "image_size": [self.state.height, self.state.width],
            "num_channels": self.state.channels,
        }

    def check(self, rows: Rows, split: str) -> list[Problem]:
        """Boxes that are no boxes, and labels that were not in train or in `task.labels`."""
        if "boxes" not in rows.column_names:
            return []
        problems: list[Problem] = []
        unknown: dict[str, str] = {}
        for row, image, cell in zip(rows["id"], rows["image"], rows["boxes"], strict=True):
            try:
                found = boxes_of(cell)
            except ValueError as error:
                problems.append(Problem(row, str(error)))
                continue
            if self.options.invalid_boxes == "refuse":
                size = upright_size(image)
                problems += [_invalid(box, size, row) for box in found if _inside(box["box"], size) is None]
            # Once a label, at its first row: a wrong list of labels would give a line for every box.
            for box in found:
                if box["label"] not in self.state.labels and not box["crowd"]:
                    unknown.setdefault(box["label"], row)
        # What the user can change: the list that was written, or the rows.
        where = "task.labels" if self.options.labels else "train"
        for label, row in unknown.items():
            hint = f"{where} has {', '.join(self.state.labels[:10])}."
            problems.append(Problem(row, f"has the label {label!r}, which is not in {where}", hint=hint))
        return problems

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        """`boxes` of a feature are JSON of lists: x, y, width, height in its pixels, and the class.

        Lists themselves would have no type in a split whose first images have no boxes.
        """
        pixels, sizes = encode_pixels(rows["image"], rows["id"], self.state)
        features: Features = {"pixels": pixels, "row": list(range(len(pixels))), "aside": list(map(list, sizes))}
        if "boxes" in rows:
            features["boxes"] = []
            for cell, size in zip(rows["boxes"], sizes, strict=True):
                # The same map as that of the pixels, so that boxes and pixels cannot disagree.
                at = place(*size, self.state)
                placed = [
                    [
                        inside[0] * at.scale_x + at.left,
                        inside[1] * at.scale_y + at.top,
                        inside[2] * at.scale_x,
                        inside[3] * at.scale_y,
                        self.state.labels.index(box["label"]),
                    ]
                    for box in boxes_of(cell)
                    if not box["crowd"] and (inside := _inside(box["box"], size))
                ]
                features["boxes"].append(json.dumps(placed))
        return features

    def notes_on(self, rows: "Dataset | None", split: str, features: Any = None) -> list[str]:
        """How many images have no boxes, and how many boxes are crowds, in the rows of a split."""
        if rows is None or "boxes" not in rows.column_names:
            return []
        found = list(map(boxes_of, rows["boxes"]))
        empty, crowds = sum(not boxes for boxes in found), sum(box["crowd"] for boxes in found for box in boxes)
        notes = [f"{split}: {plural(empty, 'images have')} no boxes"] if empty else []
        if empty == len(found):
            notes = [f"{split}: no image has boxes, so that all scores of boxes are 0"]
        seen = {box["label"] for boxes in found for box in boxes}
        if split == "train" and (without := [label for label in self.state.labels if label not in seen]):
            notes.append(f"{split}: no box has the label {few(without)}")
        return notes + ([f"{split}: {plural(crowds, 'crowds')}, which are not trained on"] if crowds else [])

    def collate(self, features: list[dict[str, Any]]) -> Arrays:
        return {"pixel_values": self.state.pixel_values(features)}

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        """Answers in pixels of the original images.

        Args:
            outputs: pairs of boxes (n, 6) and the width and height of the image. Boxes are left, top, right, and
                bottom as shares of what the model sees, score, and class.
        """
        answers = []
        for boxes, (width, height) in outputs:
            found = self._found(numpy.asarray(boxes, float), width, height)
            answer: Answer = {"answer": [box for box in found if box["score"] >= self._threshold]}
            if not self.state.inference:  # COCO's scores are over all boxes, however unsure
                answer["others"] = [box for box in found if box["score"] < self._threshold]
            answers.append(answer)
        return answers

    @property
    def _threshold(self) -> float:
        """What the config says, which predict may set anew; else what was learned."""
        return self.state.threshold if isinstance(self.options.threshold, str) else self.options.threshold

    def _found(self, boxes: numpy.ndarray, width: int, height: int) -> list[dict[str, Any]]:
        """The boxes of an image of this size, cut at its border."""
        at, state = place(width, height, self.state), self.state
        # From shares of what the model sees to its pixels, then by the inverse of `place` to those of the image.
        view = numpy.array([state.width, state.height] * 2)
        start, scale = numpy.array([at.left, at.top] * 2), numpy.array([at.scale_x, at.scale_y] * 2)
        corners = ((boxes[:, :4] * view - start) / scale).clip(0, [width, height] * 2)
        return [
            # A hundredth of a pixel: what is written to a file is what is scored.
            {"label": state.labels[int(number)], "score": round(float(score), 6), "box": _rounded(corner)}
            for corner, score, number in zip(corners, boxes[:, 4], boxes[:, 5], strict=True)
            if (corner[2:] > corner[:2]).all()
        ]

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """COCO's scores of all boxes, and precision, recall, and F1 of those that are answers."""
        right = list(map(boxes_of, references["boxes"]))
        numbers = {label: number for number, label in enumerate(self.state.labels)}
        found = [
            [(*box["box"], box["score"], numbers[box["label"]]) for box in answer["answer"] + answer["others"]]
            for answer in answers
        ]
        counts = numpy.array(
            [self._counts(answer["answer"], boxes) for answer, boxes in zip(answers, right, strict=True)]
        )
        scores = detection_scores(found, right, self.state.labels)
        by_label = counts.sum(axis=0)  # (labels, 3)
        for label, row in zip(self.state.labels, by_label, strict=True):
            if label in scores["per_class"]:
                scores["per_class"][label] |= _f1(row) | {"support": int(row[0] + row[2])}
        return scores | _f1(by_label.sum(axis=0))

    def _counts(self, answer: list[dict[str, Any]], boxes: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
        """By label, how many boxes of an image are right, too many, and missing."""
        # A box of the right place and the wrong label is one too many of the one, and one missing of the other.
        parts = [
            [[box for box in each if box["label"] == label] for each in (answer, boxes)] for label in self.state.labels
        ]
        return [matches(*part) for part in parts]

    def output_difference(self, original: list[Any], exported: list[Any]) -> float:
        """The most by which a score, or a side as a share of the image, differs from that of its nearest box.

        Boxes of equal scores may come in any order. Those below SURE are left out: of the last ones, each model may
        have others.
        """
        worst = 0.0
        for one, other in zip(original, exported, strict=True):
            for mine, theirs in ((one, other), (other, one)):
                sure = mine[mine[:, 4] >= SURE]
                if len(sure):
                    apart = abs(sure[:, None, :5] - theirs[None, :, :5]).max(axis=-1)
                    # Another class is as far away as a share can be.
                    apart[sure[:, None, 5] != theirs[None, :, 5]] = 1
                    worst = max(worst, float(apart.min(axis=1).max()))
        return worst

    @property
    def calibrates(self) -> bool:
        """Whether the threshold is chosen on validation rows."""
        return isinstance(self.options.threshold, str)

    def calibrate(self, outputs: list[Any], references: "Dataset") -> Self:
        """The task with the threshold of the highest F1 on these rows, the lowest of equal ones."""
        # All boxes, decoded once; each threshold then selects from them.
        found = [answer["answer"] for answer in self.with_state(replace(self.state, threshold=0.0)).decode(outputs, [])]
        right = list(map(boxes_of, references["boxes"]))

        def f1(threshold: float) -> float:
            sure = ([box for box in boxes if box["score"] >= threshold] for boxes in found)
            return _f1(numpy.sum([matches(*pair) for pair in zip(sure, right, strict=True)], axis=0))["f1"]

        return self.with_state(replace(self.state, threshold=round(float(max(STEPS, key=f1)), 2)))

    def format_input(self, row: dict[str, Any]) -> str:
        return name_of(row["image"])

    def reference(self, row: dict[str, Any]) -> Any:
        return boxes_of(row["boxes"]) if row.get("boxes") is not None else None

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """F1 of the boxes of a row; its error is the number of boxes that are too many or missing."""
        hits, extra, missed = matches(answer["answer"], reference)
        if not hits + extra + missed:
            return RowScore("f1", 1.0)
        why = ", ".join([f"{missed} missed"] * bool(missed) + [f"{extra} too many"] * bool(extra))
        return RowScore("f1", 2.0 * hits, 2.0 * hits + extra + missed, float(extra + missed), why)

    def explain(self, rows: Rows, answers: list[Answer], ask: Ask) -> list[dict[str, Any]]:
        """What speaks for the surest box of each image; see occlusion.py."""
        return [self._explain(cell, answer, ask) for cell, answer in zip(rows["image"], answers, strict=True)]

    def _explain(self, cell: Cell, answer: Answer, ask: Ask) -> dict[str, Any]:
        at = place(*upright_size(cell), self.state)

        def overlap(surest: dict[str, Any], part: dict[str, Any]) -> float:
            """Of a box in the image, and one in what the model sees, of which the answers to hidden parts are."""
            x, y, width, height = surest["box"]
            seen = [x * at.scale_x + at.left, y * at.scale_y + at.top, width * at.scale_x, height * at.scale_y]
            return float(overlaps(numpy.array(seen), numpy.array(part["box"])).item())

        subject = of_surest(answer, ("box",), overlap)
        return explain_image(cell, subject, self.state, ask) if subject else NOTHING

    def draw(self, cell: Cell, answer: Answer, side: int | None = None) -> Image.Image:
        """The image with the boxes of an answer or a reference, see drawing.py, over the weights of its parts."""
        image = as_array(open_image(cell), 3)
        if "explanation" in answer:
            image = draw_weights(image, answer["explanation"])
        small, scale = shrunk(image, side)
        boxes = [box | {"box": [scale * value for value in box["box"]]} for box in answer["answer"]]
        return draw_boxes(small, boxes, self.state.labels)

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Images of circles, squares, and triangles; see shapes.py."""
        found = shapes.scenes(rows, seed)
        return {"image": found["image"], "boxes": list(map(json.dumps, found["boxes"]))}


def boxes_of(cell: str | None) -> list[dict[str, Any]]:
    """The boxes in a cell of the column `boxes`, each with `box`, `label`, and `crowd`.

    Also those of data sets on the hub: an object with the lists `bbox` and `category`, or a list of such objects.

    Raises:
        ValueError: for something else than a list of boxes.
    """
    found = json.loads(cell) if cell else []
    if isinstance(found, dict) and isinstance(found.get("bbox"), list) and isinstance(found.get("category"), list):
        if len(found["bbox"]) != len(found["category"]):
            raise ValueError(f"has {len(found['bbox'])} boxes and {len(found['category'])} categories")
        found = [{"box": box, "label": name} for box, name in zip(found["bbox"], found["category"], strict=True)]
    if not isinstance(found, list):
        raise ValueError(f"must have a list of boxes, got {str(found)[:60]}")
    return [_box_of(box) for box in found]


def _box_of(given: Any) -> dict[str, Any]:
    """A box of a cell by the names that it has here."""
    box = dict(given) if isinstance(given, dict) else {}
    sides, label = box.pop("bbox", box.get("box")), box.pop("category", box.get("label"))
    if not (isinstance(sides, list) and len(sides) == 4 and all(isinstance(side, int | float) for side in sides)):
        raise ValueError(f'must have boxes such as {{"box": [x, y, width, height], "label": "cat"}}, got {given}')
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise ValueError(f"must have a label for each box, got {given}")
    return box | {"box": sides, "label": str(label), "crowd": bool(box.get("crowd", box.get("iscrowd", False)))}


def _inside(box: list[float], size: tuple[int, int]) -> list[float] | None:
    """A box cut at the border of its image; None if nothing is left."""
    x, y, width, height = box
    # Annotators draw past the border: that part is cut, and only a box with nothing left is a mistake.
    left, top = max(x, 0), max(y, 0)
    inside = [left, top, min(x + width, size[0]) - left, min(y + height, size[1]) - top]
    return inside if min(inside[2:]) > 0 else None


def _invalid(box: dict[str, Any], size: tuple[int, int], row: str) -> Problem:
    """The problem of a box of which nothing is inside of its image."""
    why = "no area" if min(box["box"][2:]) <= 0 else f"no part in its image of {size[0]} x {size[1]}"
    what = f"has a box of {box['label']!r} with {why}: {_numbers(box['box'])}"
    return Problem(row, what, hint="Correct it, or write task.invalid_boxes=drop.")


def _f1(counts: numpy.ndarray) -> dict[str, float]:
    """Precision, recall, and F1 of boxes that are right, too many, and missing."""
    hits, extra, missed = map(int, counts)
    whole = max(2 * hits + extra + missed, 1)
    return {"precision": hits / max(hits + extra, 1), "recall": hits / max(hits + missed, 1), "f1": 2 * hits / whole}


def _rounded(corners: numpy.ndarray) -> list[float]:
    left, top, right, bottom = (round(float(value), 2) for value in corners)
    return [left, top, round(right - left, 2), round(bottom - top, 2)]


def _numbers(box: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in box)
