"""Which parts of an image speak for its answer."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from datasets import Dataset
from PIL import Image

from llmft.cli import main
from llmft.config.load import load as compose
from llmft.data.images import open_image
from llmft.predictions.predict import ready
from llmft.reporting.answers import EXPLAINED
from llmft.tasks.images import shapes
from llmft.tasks.images.occlusion import GRID, as_rows, draw_weights, explain_image, hide, strength
from llmft.tasks.images.pixels import ImageState
from llmft.training.evaluation import predict
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]


def state(**more: Any) -> ImageState:
    facts = {"height": 14, "width": 14, "channels": 1, "mean": [0.0], "std": [1.0], "resample": "nearest"}
    return ImageState(**(facts | {"fit": "stretch"} | more))


def brightness_of(rows: Dataset) -> list[dict[str, Any]]:
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
    found = explain_image(cell, answer, state(), brightness_of)
    assert found["of"] == "bright"
    assert len(found["parts"]) == GRID**2
    (part,) = [part for part in found["parts"] if part["weight"]]
    assert part["box"] == [8.0, 4.0, 4.0, 4.0]  # in pixels of the image, which is twice as large as what is seen
    # From 192 / 256 to nearly 0, since black is the fill of a mean of 0.
    assert part["weight"] == pytest.approx(math.log(3) - strength({"scores": {"bright": 0.0}}, "bright"))


def test_a_number_is_explained_by_what_it_loses() -> None:
    def total(rows: Dataset) -> list[dict[str, Any]]:
        return [{"answer": float(numpy.asarray(open_image(cell), int).sum())} for cell in rows["image"]]

    pixels = numpy.zeros((14, 14), numpy.uint8)
    pixels[13, 13] = 9
    found = explain_image(as_rows([pixels])["image"][0], {"answer": 9.0}, state(), total)
    assert found["of"] is None
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
    found = explain_image(cell, {"answer": 0.0}, state(fit=fit), lambda rows: [{"answer": 0.0}] * len(rows))
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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that has learned to tell shapes."""
    folder = tmp_path_factory.mktemp("explain")
    words = ["smoke=true", "trainer.max_steps=60", "dataset.max_rows=256", "trainer.batch_size=16"]
    assert main(["finetune", "+recipe=image_cls", *words, "optimizer.lr=3e-3", f"run.dir={folder}/run"]) == 0
    return folder / "run"


def test_hiding_the_best_fifth_lowers_the_score_more_than_a_random_fifth(run: Path) -> None:
    config = compose("predict", [str(run)])
    answering = ready(config)
    task = answering.task

    def ask(rows: Dataset) -> list[dict[str, Any]]:
        return predict(task, answering.model, encode(task, rows), 64).answers

    images = [numpy.asarray(open_image(cell)) for cell in shapes.classified(12, 5)["image"]]
    rows = as_rows(images)
    answers = ask(rows)
    explained = task.explain(rows, answers, ask)
    rng, fifth = numpy.random.default_rng(0), GRID**2 // 5
    best, random = [], []
    for image, answer, one in zip(images, answers, explained, strict=True):
        places = [
            tuple(slice(round(start), round(start + side)) for start, side in ((y, h), (x, w)))
            for x, y, w, h in (part["box"] for part in one["parts"])
        ]
        order = numpy.argsort([-part["weight"] for part in one["parts"]])
        drawn = [rng.permutation(GRID**2) for _ in range(5)]
        hidden = [
            hide(image, [places[number] for number in chosen[:fifth]], task.state.fill) for chosen in [order, *drawn]
        ]
        whole = strength(answer, one["of"])
        lost = [whole - strength(other, one["of"]) for other in ask(as_rows(hidden))]
        best.append(lost[0])
        random.append(numpy.mean(lost[1:]))
    assert numpy.mean(best) > 2 * max(numpy.mean(random), 0)
    assert numpy.mean(numpy.array(best) > random) >= 0.9


def test_the_report_shows_what_speaks_for_the_worst_mistakes(llmft: Run, here: Path) -> None:
    assert llmft("finetune", "+recipe=image_cls", "smoke=true", "trainer.max_steps=1", "run.dir=bad")[0] == 0
    page = (here / "bad/report.html").read_text()
    rows = [json.loads(line) for line in (here / "bad/predictions/test.jsonl").read_text().splitlines()]
    wrong = [row for row in rows if row["answer"] != row["label"]]
    assert wrong, "a model without mistakes tests nothing here"
    assert page.count('<figcaption class="soft">speaks for ') == min(len(wrong), EXPLAINED)


def test_predict_explains_and_draws(run: Path, llmft: Run, here: Path) -> None:
    image = open_image(shapes.classified(1, 5)["image"][0])
    image.save(here / "shape.png")
    words = ["predict.row={image: shape.png}", "predict.explain=true", "predict.draw=drawn"]
    code, out, err = llmft("predict", str(run), *words)
    assert code == 0, err
    answer = json.loads(out)
    assert answer["explanation"]["of"] == answer["answer"]
    assert {tuple(part) for part in answer["explanation"]["parts"]} == {("box", "weight")}
    assert Image.open(answer["drawing"]).size == image.size


def test_a_task_without_explanations_says_so(llmft: Run) -> None:
    words = ["+recipe=segmentation", "smoke=true", "trainer.max_steps=1", "run.dir=run"]
    assert llmft("finetune", *words)[0] == 0
    code, _, err = llmft("predict", "run", "predict.row={image: x.png}", "predict.explain=true")
    assert code == 2
    assert "task=semantic_segmentation cannot say which parts of an input speak for its answer" in err
