"""Which parts of an image speak for its answer."""

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from llmft.cli import main
from llmft.config.load import load as compose
from llmft.data.images import open_image
from llmft.data.source import Rows, Table
from llmft.metrics.detection_metrics import overlaps
from llmft.predictions.predict import ready
from llmft.reporting.answers import EXPLAINED
from llmft.tasks.explaining import NOTHING, log_odds, of_target
from llmft.tasks.images import shapes
from llmft.tasks.images.config import ObjectDetection as DetectionSection
from llmft.tasks.images.object_detection import DetectionState, ObjectDetection
from llmft.tasks.images.occlusion import GRID, as_rows, draw_weights, explain_image, hide
from llmft.tasks.images.pixels import ImageState
from llmft.training.evaluation import predict
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]


def state(**more: Any) -> ImageState:
    facts = {"height": 14, "width": 14, "channels": 1, "mean": [0.0], "std": [1.0], "resample": "nearest"}
    return ImageState(**(facts | {"fit": "stretch"} | more))


def brightness_of(rows: Rows) -> list[dict[str, Any]]:
    """A model that looks at one place: the brightness of the third part from the left in the second row of parts."""
    found = []
    for cell in rows["image"]:
        pixels = numpy.asarray(open_image(cell).convert("L").resize((14, 14), Image.Resampling.NEAREST))
        score = float(pixels[2:4, 4:6].mean()) / 256
        found.append({"answer": "dark", "scores": {"dark": 1 - score, "bright": score}})
    return found


def test_the_weight_of_a_part_is_what_the_log_odds_lose() -> None:
    pixels = numpy.full((28, 28), 64, numpy.uint8)
    pixels[4:8, 8:12] = 192
    cell = as_rows([pixels])["image"][0]
    answer = brightness_of(as_rows([pixels]))[0]
    found = explain_image(cell, of_target(answer), state(), brightness_of)
    assert found["of"] == "bright"
    assert len(found["parts"]) == GRID**2
    (part,) = [part for part in found["parts"] if part["weight"]]
    assert part["box"] == [8.0, 4.0, 4.0, 4.0]  # in pixels of the image, which is twice as large as what is seen
    # From 192 / 256 to nearly 0, since black is the fill of a mean of 0.
    assert part["weight"] == pytest.approx(math.log(3) - log_odds(0.0))


def test_a_number_is_explained_by_what_it_loses() -> None:
    def total(rows: Rows) -> list[dict[str, Any]]:
        return [{"answer": float(numpy.asarray(open_image(cell), int).sum())} for cell in rows["image"]]

    pixels = numpy.zeros((14, 14), numpy.uint8)
    pixels[13, 13] = 9
    found = explain_image(as_rows([pixels])["image"][0], of_target({"answer": 9.0}), state(), total)
    assert (found["of"], found["measure"]) == (9.0, "number")
    assert [part["weight"] for part in found["parts"]] == [0.0] * 48 + [9.0]


@pytest.mark.parametrize(
    ("fit", "first", "last"),
    [
        ("crop", [7.0, 0.0, 2.0, 2.0], [19.0, 12.0, 2.0, 2.0]),  # 7 of 28 columns are cut off at each side
        ("pad", [0.0, 0.0, 4.0, 4.0], [24.0, 14.0, 4.0, 0.0]),  # the lower half is no part of the image
        ("stretch", [0.0, 0.0, 4.0, 2.0], [24.0, 12.0, 4.0, 2.0]),
    ],
)
def test_parts_are_told_in_pixels_of_the_image(fit: str, first: list[float], last: list[float]) -> None:
    cell = as_rows([numpy.zeros((14, 28), numpy.uint8)])["image"][0]
    subject = of_target({"answer": 0.0})
    found = explain_image(cell, subject, state(fit=fit), lambda rows: [{"answer": 0.0}] * len(rows))
    assert found["parts"][0]["box"] == pytest.approx(first)
    assert found["parts"][-1]["box"] == pytest.approx(last)


def test_weights_are_drawn_in_two_colors() -> None:
    parts = [{"box": [0, 0, 2, 2], "weight": 2.0}, {"box": [2, 0, 2, 2], "weight": -1.0}]
    drawn = draw_weights(Image.new("RGB", (4, 3), (100, 100, 100)), {"of": "cat", "parts": parts})
    assert [drawn.getpixel(place) for place in ((0, 0), (3, 1), (0, 2))] == [
        (172, 58, 58),
        (79, 88, 136),
        (100, 100, 100),
    ]


def test_a_box_is_explained_by_its_score_and_overlap(here: Path) -> None:
    """The image is twice as large as what the model sees; one box gets unsure, then moves, without its part."""
    labels = DetectionState(14, 14, 1, [0.0], [1.0], "nearest", "stretch", labels=["cell", "fault"])
    task = ObjectDetection(DetectionSection()).with_state(labels)
    cell = as_rows([numpy.full((28, 28), 64, numpy.uint8)])["image"][0]
    asked = []

    def ask(rows: Rows) -> list[dict[str, Any]]:
        asked.append(len(rows))
        found = []
        for one in rows["image"]:
            pixels = numpy.asarray(open_image(one))
            # What was twice as far from the corner in the image is here.
            box = [2.0, 2.0, 4.0, 4.0] if pixels[0, 0] else [4.0, 2.0, 4.0, 4.0]
            sure = {"label": "cell", "score": 0.8 if pixels[13, 13] else 0.2, "box": box}
            other = {"label": "fault", "score": 0.9, "box": [2.0, 2.0, 4.0, 4.0]}
            found.append({"answer": [other], "others": [sure]})
        return found

    answer = {"answer": [{"label": "cell", "score": 0.8, "box": [4.0, 4.0, 8.0, 8.0]}]}
    first, nothing = task.explain(Table({"image": [cell, cell]}, ["a", "b"]), [answer, {"answer": []}], ask)
    assert nothing == NOTHING
    assert asked == [1 + GRID**2]
    assert (first["of"], first["measure"], first["box"]) == ("cell", "score", [4.0, 4.0, 8.0, 8.0])
    found = [part["weight"] for part in first["parts"]]
    # Half of the box that moved overlaps: 8 of 24 pixels.
    assert found == pytest.approx([0.8 - 0.8 / 3, *[0.0] * (GRID**2 - 2), 0.6])


WORDS = {
    "image_cls": ["trainer.max_steps=60", "dataset.max_rows=256", "trainer.batch_size=16", "optimizer.lr=3e-3"],
    "segmentation": ["trainer.max_steps=40", "dataset.max_rows=256", "trainer.batch_size=16"],
    "detection": ["trainer.max_steps=120", "dataset.max_rows=256", "trainer.batch_size=16", "optimizer.lr=3e-3"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small models that have learned to tell, or to find, shapes."""
    folder = tmp_path_factory.mktemp("explain")

    @cache
    def trained(recipe: str) -> Path:
        words = [*WORDS[recipe], *(["model=centernet"] if recipe == "detection" else [])]
        assert main(["finetune", f"+recipe={recipe}", "smoke=true", *words, f"run.dir={folder / recipe}"]) == 0
        return folder / recipe

    return trained


@pytest.mark.parametrize("recipe", WORDS)
def test_hiding_the_best_fifth_lowers_the_score_more_than_a_random_fifth(
    recipe: str, runs: Callable[[str], Path]
) -> None:
    if recipe == "detection":
        pytest.importorskip("faster_coco_eval")
    answering = ready(compose("predict", [str(runs(recipe))]))
    task = answering.task
    drawn = shapes.classified(12, 5) if recipe == "image_cls" else shapes.scenes(12, 5, telling=True)
    images = [numpy.asarray(open_image(cell)) for cell in drawn["image"]]
    rows = as_rows(images)
    answers = predict(task, answering.model, encode(task, rows), 64).answers
    rng, fifth = numpy.random.default_rng(0), GRID**2 // 5
    best, random = [], []
    for image, answer in zip(images, answers, strict=True):
        (one,) = task.explain(as_rows([image]), [answer], answering._ask)
        if not one["parts"]:
            continue
        places = [
            tuple(slice(round(start), round(start + side)) for start, side in ((y, h), (x, w)))
            for x, y, w, h in (part["box"] for part in one["parts"])
        ]
        order = numpy.argsort([-part["weight"] for part in one["parts"]])
        drawings = [order, *(rng.permutation(GRID**2) for _ in range(5))]
        hidden = [hide(image, [places[number] for number in chosen[:fifth]], task.state.fill) for chosen in drawings]
        lost = [_left(one, other) for other in answering._ask(as_rows([image, *hidden]))]
        best.append(lost[0] - lost[1])
        random.append(numpy.mean(lost[0] - numpy.array(lost[2:])))
    assert len(best) >= 10
    assert numpy.mean(best) > 2 * max(numpy.mean(random), 0)
    assert numpy.mean(numpy.array(best) > random) >= 0.9


def _left(explanation: dict[str, Any], other: dict[str, Any]) -> float:
    """How much of what is explained another answer has, worked out anew."""
    of = explanation["of"]
    if explanation["measure"] == "share":
        return float(other["answer"][of])
    if explanation["measure"] == "log-odds":
        return log_odds(other["scores"][of])
    boxes = [box for box in (*other["answer"], *other["others"]) if box["label"] == of]
    shared = overlaps(numpy.array(explanation["box"]), numpy.array([box["box"] for box in boxes]).reshape(-1, 4))
    return float(max((shared * [box["score"] for box in boxes]).ravel(), default=0.0))


def test_the_report_shows_what_speaks_for_the_worst_mistakes(llmft: Run, here: Path) -> None:
    assert llmft("finetune", "+recipe=image_cls", "smoke=true", "trainer.max_steps=1", "run.dir=bad")[0] == 0
    page = (here / "bad/report.html").read_text()
    rows = [json.loads(line) for line in (here / "bad/predictions/test.jsonl").read_text().splitlines()]
    wrong = [row for row in rows if row["answer"] != row["label"]]
    assert wrong, "a model without mistakes tests nothing here"
    assert page.count('<figcaption class="soft">speaks for ') == min(len(wrong), EXPLAINED)


def test_predict_explains_and_draws(runs: Callable[[str], Path], llmft: Run, here: Path) -> None:
    image = open_image(shapes.classified(1, 5)["image"][0])
    image.save(here / "shape.png")
    words = ["predict.row={image: shape.png}", "predict.explain=true", "predict.draw=drawn"]
    code, out, err = llmft("predict", str(runs("image_cls")), *words)
    assert code == 0, err
    answer = json.loads(out)
    assert answer["explanation"]["of"] == answer["answer"]
    assert {tuple(part) for part in answer["explanation"]["parts"]} == {("box", "weight")}
    assert Image.open(answer["drawing"]).size == image.size


def test_the_report_explains_boxes(runs: Callable[[str], Path]) -> None:
    pytest.importorskip("faster_coco_eval")
    page = (runs("detection") / "report.html").read_text()
    assert 1 <= page.count('<figcaption class="soft">speaks for ') <= EXPLAINED


def test_a_task_without_explanations_says_so(llmft: Run) -> None:
    words = ["+recipe=t5_summary", "smoke=true", "trainer.max_steps=1", "run.dir=run"]
    assert llmft("finetune", *words)[0] == 0
    code, _, err = llmft("predict", "run", "predict.text=x", "predict.explain=true")
    assert code == 2
    assert "task=summarization cannot say which parts of an input speak for its answer" in err
