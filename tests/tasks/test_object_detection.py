"""Boxes: what is checked, how they move between the picture and the model, and how answers are scored."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from datasets import Dataset
from PIL import Image, ImageColor

pytest.importorskip("faster_coco_eval")

from llmft import tasks
from llmft.config.load import load
from llmft.schema.augmentation import AugmentConfig
from llmft.schema.model import ModelConfig
from llmft.schema.problem import UserError
from llmft.schema.tasks import IGNORED
from llmft.tasks.images.config import ObjectDetection as Section
from llmft.tasks.images.detection_objective import best_boxes
from llmft.tasks.images.drawing import COLORS
from llmft.tasks.images.object_detection import ObjectDetection, boxes_of
from llmft.tasks.images.shapes import png

MODEL = ModelConfig(architecture="centernet")


def cell(width: int, height: int) -> dict[str, Any]:
    return png(numpy.zeros((height, width, 3), numpy.uint8))


def box(label: str, *sides: float, crowd: bool = False) -> dict[str, Any]:
    return {"box": list(sides), "label": label, "crowd": crowd}


def rows(*pairs: tuple[dict[str, Any], list[dict[str, Any]]]) -> Dataset:
    columns = {"id": [f"a:{number}" for number, _ in enumerate(pairs, 1)]}
    images, boxes = zip(*pairs, strict=True)
    return Dataset.from_dict(columns | {"image": list(images), "boxes": list(map(json.dumps, boxes))})


def fitted(data: Dataset, **keys: Any) -> ObjectDetection:
    task = tasks.build(Section(**{"size": [30, 40], **keys}))
    found = task.fit(data, MODEL)
    assert isinstance(found, ObjectDetection)
    return found


@pytest.mark.parametrize(
    ("fit", "size", "placed"),
    [
        # 80 x 120 into 40 x 30: a half and a quarter.
        ("stretch", (80, 120), [10, 5, 20, 10]),
        # A quarter of both, and the rest of the width is filled.
        ("pad", (80, 120), [5, 5, 10, 10]),
        ("pad", (40, 30), [20, 20, 20, 10]),
    ],
)
def test_boxes_go_to_the_pixels_of_the_model_and_back(fit: str, size: tuple[int, int], placed: list[float]) -> None:
    given = box("cat", 20, 20, 40, 40)
    data = rows((cell(*size), [given]))
    task = fitted(data, fit=fit)
    features = task.encode(data[:])
    assert json.loads(features["boxes"][0]) == [pytest.approx([*placed, 0])]
    left, top, width, height = placed
    corners = numpy.array([left / 40, top / 30, (left + width) / 40, (top + height) / 30, 0.9, 0])[None]
    (answer,) = task.decode([(corners, features["aside"][0])], [0])
    inside = [20, 20, min(40, size[0] - 20), min(40, size[1] - 20)]
    assert answer["answer"] == [{"label": "cat", "score": 0.9, "box": pytest.approx(inside, abs=0.01)}]


def test_crowds_are_not_trained_on() -> None:
    data = rows((cell(40, 30), [box("cat", 1, 1, 5, 5), box("dog", 0, 0, 30, 30, crowd=True)]), (cell(40, 30), []))
    task = fitted(data)
    assert task.state.labels == ["cat"]
    assert task.check(data, "train") == []
    assert task.notes_on(data, "train") == ["train: 1 image has no boxes", "train: 1 crowd, which are not trained on"]
    assert task.encode(data[:])["boxes"] == ["[[1.0, 1.0, 5.0, 5.0, 0]]", "[]"]


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (box("cat", 5, 5, 0, 10), "has a box of 'cat' with no area: 5, 5, 0, 10"),
        (box("cat", 5, 5, -3, 10), "has a box of 'cat' with no area: 5, 5, -3, 10"),
        (box("cat", 40, 0, 10, 10), "has a box of 'cat' with no part in its image of 40 x 30: 40, 0, 10, 10"),
        (box("cat", 0, -10, 10, 10), "has a box of 'cat' with no part in its image of 40 x 30: 0, -10, 10, 10"),
    ],
)
def test_a_box_that_is_none_is_refused_or_dropped(wrong: dict[str, Any], what: str) -> None:
    good = box("cat", 35, 25, 10, 10)  # cut at the border
    data = rows((cell(40, 30), [good, wrong]))
    assert [(one.key, one.what) for one in fitted(data).check(data, "train")] == [("a:1", what)]
    assert fitted(data, invalid_boxes="drop").check(data, "train") == []
    assert json.loads(fitted(data, invalid_boxes="drop").encode(data[:])["boxes"][0]) == [[35, 25, 5, 5, 0]]


def test_problems_of_all_kinds_come_together() -> None:
    data = rows((cell(40, 30), [box("cat", 1, 1, 5, 5)]))
    other = rows((cell(40, 30), [box("dog", 1, 1, 5, 5), box("cat", 5, 5, 0, 9)]), (cell(40, 30), [{"label": "cat"}]))
    found = [problem.what for problem in fitted(data).check(other, "test")]
    assert len(found) == 3
    assert [word in "".join(found) for word in ("no area", "must have boxes", "has the label 'dog'")] == [True] * 3


def test_a_threshold_of_the_config_counts_more_than_the_learned_one() -> None:
    """So `llmft predict` can set another one."""
    data = rows((cell(40, 30), [box("cat", 1, 1, 5, 5)]))
    outputs = [(numpy.array([[0.1, 0.1, 0.5, 0.5, 0.4, 0], [0.2, 0.2, 0.6, 0.6, 0.8, 0]]), (40, 30))]
    for wanted, count in ((0.3, 2), (0.5, 1), (0.9, 0), ("f1", 1)):
        task = fitted(data, threshold=wanted)
        (answer,) = task.with_state(replace(task.state, threshold=0.5)).decode(outputs, [0])
        assert len(answer["answer"]) == count


def test_labels_that_were_not_in_train_are_refused() -> None:
    data = rows((cell(40, 30), [box("cat", 1, 1, 5, 5)]))
    other = rows((cell(40, 30), [box("dog", 1, 1, 5, 5)]), (cell(40, 30), [box("dog", 1, 1, 5, 5)]))
    (problem,) = fitted(data).check(other, "test")
    assert (problem.key, problem.what) == ("a:1", "has the label 'dog', which is not in train")
    assert fitted(data, labels=["cat", "dog"]).check(other, "test") == []


@pytest.mark.parametrize("text", ['{"a": 1}', '[{"box": [1, 2, 3], "label": "cat"}]', '[{"box": [1, 2, 3, 4]}]'])
def test_something_else_than_boxes(text: str) -> None:
    data = rows((cell(40, 30), [box("cat", 1, 1, 5, 5)]))
    other = data.remove_columns("boxes").add_column("boxes", [text])
    (problem,) = fitted(data).check(other, "test")
    assert "must have" in problem.what


def test_train_without_any_box() -> None:
    with pytest.raises(UserError, match="must have boxes"):
        fitted(rows((cell(40, 30), [])))


def test_a_batch_has_boxes_as_shares_and_moves_them_with_the_picture() -> None:
    data = rows((cell(40, 30), [box("dog", 0, 0, 20, 15), box("cat", 10, 15, 4, 6)]), (cell(40, 30), []))
    task = fitted(data)
    features = task.encode(data[:])
    batch = [{key: features[key][row] for key in ("pixels", "boxes")} for row in range(2)]
    found = task.objective.collate(batch)
    assert found["pixel_values"].shape == (2, 3, 30, 40)
    assert found["labels"].tolist() == [[1, 0], [IGNORED, IGNORED]]
    assert found["boxes"][0].tolist() == [pytest.approx([0.25, 0.25, 0.5, 0.5]), pytest.approx([0.3, 0.6, 0.1, 0.2])]
    assert task.objective.loss_weight(found) == 2
    drawn = [row | {"draw": 1} for row in batch]
    mirrored = task.objective.collate(drawn, AugmentConfig(flip=1.0))
    assert mirrored["boxes"][0].tolist() == [
        pytest.approx([0.75, 0.25, 0.5, 0.5]),
        pytest.approx([0.7, 0.6, 0.1, 0.2]),
    ]


def test_answers_of_both_kinds_of_models() -> None:
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.25, 0.5, 0.5]]])
    logits = torch.tensor([[[0.0, -9.0], [2.0, 1.0]]])
    found = best_boxes(logits, boxes, 2)  # scores of their own: 2 queries x 2 classes
    assert found[0, :, 4].tolist() == pytest.approx(torch.tensor([2.0, 1.0, 0.0, -9.0]).sigmoid().tolist())
    assert found[0, :, 5].tolist() == [0, 1, 0, 1]
    assert found[0, 0, :4].tolist() == pytest.approx([0, 0, 0.5, 0.5])
    assert found[0, 2, :4].tolist() == pytest.approx([0.4, 0.3, 0.6, 0.7])
    nothing = torch.tensor([[[0.0, 0.0, 5.0], [0.0, 3.0, 0.0]]])  # the last is for nothing
    found = best_boxes(nothing, boxes, 2)
    assert found[0, :, 5].tolist() == [1, 0]
    assert found[0, 0, 4] == pytest.approx(nothing.softmax(-1)[0, 1, 1])


def answered(*boxes: tuple[str, float, list[float]]) -> list[dict[str, Any]]:
    return [{"label": label, "score": score, "box": sides} for label, score, sides in boxes]


def test_scores_are_over_all_boxes_and_answers_over_the_sure_ones() -> None:
    data = rows((cell(40, 30), [box("cat", 0, 0, 10, 10), box("cat", 20, 10, 10, 10)]))
    task = fitted(data)
    answer = {
        "answer": answered(("cat", 0.9, [0, 0, 10, 10])),
        "others": answered(("cat", 0.2, [20, 10, 10, 10])),
    }
    scores = task.score([answer], data)
    assert scores["map"] == pytest.approx(1)
    assert (scores["precision"], scores["recall"], scores["f1"]) == (1, 0.5, pytest.approx(2 / 3))
    row = task.row_score(answer, task.reference(data[0]))
    assert (row.metric, row.part / row.whole, row.error, row.why) == ("f1", pytest.approx(2 / 3), 1.0, "1 missed")


def test_the_threshold_is_that_of_the_best_f1() -> None:
    data = rows((cell(40, 30), [box("cat", 0, 0, 10, 10)]))
    task = fitted(data)
    right, wrong = [0, 0, 0.25, 1 / 3], [0.5, 0.5, 0.75, 1.0]
    outputs = [(numpy.array([[*right, 0.4, 0], [*wrong, 0.3, 0]]), [40, 30])]
    assert task.calibrates
    assert 0.3 < task.calibrate(outputs, data).state.threshold <= 0.4
    assert not fitted(data, threshold=0.7).calibrates
    assert fitted(data, threshold=0.7).state.threshold == 0.7


def test_predict_gives_the_sure_boxes_alone() -> None:
    data = rows((cell(40, 30), [box("cat", 0, 0, 10, 10)]))
    task = fitted(data).for_inference("row")
    (answer,) = task.decode([(numpy.array([[0, 0, 0.5, 0.5, 0.1, 0]]), [40, 30])], [0])
    assert answer == {"answer": []}


def test_state_says_how_others_prepare_images(here: Path) -> None:
    task = fitted(rows((cell(40, 30), [box("cat", 0, 0, 10, 10)])))
    task.save(here)
    facts = json.loads((here / "preprocessor_config.json").read_text())
    assert facts["size"] == {"height": 30, "width": 40}
    assert Image.Resampling(facts["resample"]) == Image.Resampling.BILINEAR


def test_a_drawing_has_the_boxes_around_their_objects() -> None:
    data = rows((cell(100, 80), [box("cat", 10, 30, 40, 20), box("dog", 60, 0, 40, 80, crowd=True)]))
    task = fitted(data)
    found = task.draw(data[0]["image"], {"answer": answered(("cat", 0.875, [10, 30, 40, 20]))})
    assert found.size == (100, 80)
    pixels = numpy.asarray(found)
    color = ImageColor.getrgb(COLORS[0])
    # The border is the outermost row of pixels of the box, and what is inside stays as it was.
    assert all((pixels[row, 10:50] == color).all() for row in (30, 49))
    assert all((pixels[30:50, column] == color).all() for column in (10, 49))
    assert not pixels[31:49, 11:49].any()
    assert not pixels[50:].any()
    assert pixels[10:30].any()  # the label and its score stand above it
    reference = task.draw(data[0]["image"], {"answer": task.reference(data[0])})
    assert numpy.asarray(reference)[79, 60:].any()  # a crowd, to the last row of the image


def test_pictures_with_boxes_are_not_blended() -> None:
    with pytest.raises(UserError, match="blends the labels of two images"):
        load("finetune", ["+recipe=detection", "augment=mixup"])


def test_boxes_as_data_sets_of_the_hub_have_them() -> None:
    whole = {"box": [1, 2, 3, 4], "label": "cat", "crowd": False}
    assert boxes_of('{"bbox": [[1, 2, 3, 4]], "category": ["cat"], "id": [7]}') == [whole]
    assert boxes_of('[{"bbox": [1, 2, 3, 4], "category": 5, "iscrowd": 1}]') == [
        {"box": [1, 2, 3, 4], "label": "5", "crowd": True, "iscrowd": 1}
    ]
    with pytest.raises(ValueError, match="has 1 boxes and 2 categories"):
        boxes_of('{"bbox": [[1, 2, 3, 4]], "category": ["cat", "dog"]}')


def test_labels_and_splits_without_boxes_are_noted() -> None:
    data = rows((cell(40, 30), [box("cat", 1, 1, 5, 5)]), (cell(40, 30), []))
    task = fitted(data, labels=["cat", "dog"])
    assert task.notes_on(data, "train") == ["train: 1 image has no boxes", "train: no box has the label dog"]
    assert task.notes_on(data.select([1]), "test") == ["test: no image has boxes, so that all scores of boxes are 0"]
