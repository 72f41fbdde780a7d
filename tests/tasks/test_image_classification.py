"""Image classification: what a state learns and saves, where a picture lies in its pixels, and its own metric."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image
from transformers import AutoImageProcessor

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.arrow import to_dataset
from llmft.data.pipeline import load
from llmft.data.source import Table
from llmft.schema.model import ModelConfig
from llmft.tasks.images.pixels import ImageState, decode, learn_pixels, place
from llmft.training.features import encode
from tests.data.test_images import encoded


def fitted(*words: str) -> Any:
    config = compose("finetune", ["+recipe=image_cls", "smoke=true", *words])
    task = tasks.build(config.task)
    rows = load(config.dataset, task)["train"]
    return task.fit(rows, config.model), rows


def state(fit: str, height: int = 4, width: int = 4, margin: int = 0) -> ImageState:
    return ImageState(height, width, 3, [0.5] * 3, [0.5] * 3, "nearest", fit, margin)


def pixels(width: int, height: int, known: ImageState) -> numpy.ndarray:
    """A picture whose red is its column and whose green is its row, decoded."""
    down, across = numpy.mgrid[0:height, 0:width]
    data = encoded(numpy.stack([across, down, numpy.full_like(across, 77)], axis=-1))
    found, size = decode({"path": None, "bytes": data}, known)
    assert size == (width, height)
    return numpy.frombuffer(found, numpy.uint8).reshape(known.height + known.margin, known.width + known.margin, 3)


def test_crop_fills_the_size_and_cuts_two_sides() -> None:
    found = pixels(8, 4, state("crop"))
    assert found[0, :, 0].tolist() == [2, 3, 4, 5]
    assert found[:, 0, 1].tolist() == [0, 1, 2, 3]
    assert place(8, 4, state("crop")) == (1.0, 1.0, -2.0, 0.0)


def test_stretch_changes_proportions() -> None:
    found = pixels(8, 4, state("stretch"))
    assert found[0, :, 0].tolist() == [1, 3, 5, 7]
    assert found[:, 0, 1].tolist() == [0, 1, 2, 3]
    assert place(8, 4, state("stretch")) == (0.5, 1.0, 0.0, 0.0)


def test_pad_keeps_proportions_and_fills_the_rest_with_the_mean() -> None:
    found = pixels(8, 4, state("pad"))
    assert found[:2, 0, 1].tolist() == [1, 3]
    assert (found[2:] == 128).all()
    assert place(8, 4, state("pad")) == (0.5, 0.5, 0.0, 0.0)


def test_a_margin_is_kept_around_what_the_model_sees() -> None:
    task, rows = fitted("task.margin=4", "augment=none")
    features = encode(task, rows)
    assert len(features[0]["pixels"]) == 36 * 36 * 3
    batch = task.objective.collate(features.__getitems__([0, 1]))
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    kept = numpy.frombuffer(features[0]["pixels"], numpy.uint8).reshape(36, 36, 3)[2:34, 2:34]
    seen = (batch["pixel_values"][0].permute(1, 2, 0) * 0.5 + 0.5) * 255
    assert numpy.abs(seen.numpy() - kept).max() < 1e-3


@pytest.mark.parametrize("words", [(), ("task.fit=stretch",), ("task.size=[24,40]", "task.fit=stretch")])
def test_the_processor_of_transformers_prepares_images_alike(words: tuple[str, ...], here: Path) -> None:
    """From preprocessor_config.json alone, to 1 level of 255 where both enlarge, and 2 where they shrink."""
    task, rows = fitted(*words, "augment=none")
    task.save(here)
    processor = AutoImageProcessor.from_pretrained(here, backend="pil")
    image = Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(numpy.uint8)).resize(
        (48, 40)
    )
    cell = {"path": None, "bytes": encoded(image)}
    features = encode(task, to_dataset(Table({"image": [cell]}, ["a"])))
    own = task.objective.collate(features.__getitems__([0]))["pixel_values"][0].numpy()
    other = processor(image, return_tensors="np")["pixel_values"][0]
    assert own.shape == other.shape
    assert numpy.abs(own - other).mean() < 2 * 2 / 255
    assert rows is not None


def test_pretrained_weights_say_how_images_are_prepared(here: Path) -> None:
    (here / "config.json").write_text(json.dumps({"image_size": 96, "num_channels": 1}))
    facts = {"crop_size": {"height": 64, "width": 48}, "image_mean": [0.1], "image_std": [0.3], "resample": 3}
    (here / "preprocessor_config.json").write_text(json.dumps(facts))
    options = compose("finetune", ["+recipe=image_cls", "task.resample=null", "task.size=null"]).task
    model = ModelConfig(path=str(here))
    known = learn_pixels(options, model)
    assert (known["height"], known["width"], known["channels"]) == (64, 48, 1)
    assert (known["mean"], known["std"], known["resample"]) == ([0.1], [0.3], "bicubic")
    (here / "preprocessor_config.json").unlink()
    assert learn_pixels(options, model)["height"] == 96
    assert learn_pixels(options, ModelConfig(architecture="resnet"))["height"] == 224


def test_top_k_accuracy_counts_labels_among_the_highest_scores() -> None:
    task, _ = fitted("task.top_k=2")
    task.state.target.labels[:] = ["a", "b", "c"]
    scores = [{"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 0.4, "b": 0.4, "c": 0.2}]
    answers = [{"answer": "a", "scores": each} for each in scores]
    found = task.score(answers, to_dataset(Table({"label": ["b", "c", "b"]}, ["1", "2", "3"])))
    assert found["top_k_accuracy"] == pytest.approx(2 / 3)
    task.state.target.labels[:] = ["a", "b"]
    assert "top_k_accuracy" not in task.score(answers, to_dataset(Table({"label": ["b", "a", "b"]}, ["1", "2", "3"])))
