"""Masks: what their values mean, what is wrong with them, and answers as masks."""

import io
from typing import Any

import numpy
import pytest
import torch
from datasets import Dataset
from PIL import Image

from llmft.config.load import load as compose
from llmft.data.masks import from_text, write_mask
from llmft.schema.model import ModelConfig
from llmft.schema.problem import UserError
from llmft.tasks.images.config import SemanticSegmentation as Section
from llmft.tasks.images.segmentation_objective import SegmentationObjective, cross_entropy, dice_loss
from llmft.tasks.images.semantic_segmentation import SemanticSegmentation

MODEL = ModelConfig(name="unet", architecture="unet", init="random")
PIXELS = [[0, 0, 1, 1], [0, 2, 2, 1]]


def cell(image: Image.Image, kind: str = "PNG", **more: Any) -> dict[str, Any]:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return {"path": None, "bytes": stream.getvalue()}


def gray(values: Any, kind: Any = numpy.uint8) -> dict[str, Any]:
    return cell(Image.fromarray(numpy.array(values, kind)))


def colored(values: list[list[str]]) -> dict[str, Any]:
    pixels = [[[int(color[place : place + 2], 16) for place in (1, 3, 5)] for color in row] for row in values]
    return cell(Image.fromarray(numpy.array(pixels, numpy.uint8)))


def rows(*masks: dict[str, Any], image: dict[str, Any] | None = None) -> Dataset:
    image = image or cell(Image.new("RGB", (4, 2), "red"))
    return Dataset.from_dict(
        {"id": [f"images/{n}.png" for n in range(len(masks))], "image": [image] * len(masks), "mask": list(masks)}
    )


def fitted(train: Dataset, **options: Any) -> SemanticSegmentation:
    return SemanticSegmentation(Section(**{"size": [8, 16], **options})).fit(train, MODEL)


def whys(train: Dataset, **options: Any) -> list[str]:
    with pytest.raises(UserError) as error:
        fitted(train, **options)
    return [problem.what for problem in error.value.problems]


def test_labels_are_the_indices_of_the_training_masks() -> None:
    task = fitted(rows(gray(PIXELS), gray([[0, 3, 255, 0]] * 2)))
    assert task.state.labels == ["0", "1", "2", "3"]
    assert task.state.notes == ["train: labels are called by their values in masks, 0, 1, 2, 3: task.labels names them"]
    assert task.model_kwargs()["num_labels"] == 4


def test_names_in_the_masks_are_taken_and_join_files_that_number_otherwise() -> None:
    one = {"path": None, "bytes": write_mask(numpy.array(PIXELS, numpy.uint8), ["background", "cat", "dog"])}
    other = {"path": None, "bytes": write_mask(numpy.array(PIXELS, numpy.uint8), ["background", "dog", "bird"])}
    task = fitted(rows(one, other))
    assert task.state.labels == ["background", "cat", "dog", "bird"]
    found = task.reference(rows(other)[0])["mask"]
    assert from_text(found).tolist() == [[0, 0, 2, 2], [0, 3, 3, 2]]
    (problem,) = fitted(rows(one)).check(rows(other), "test")
    assert problem.what.endswith("has the label bird, which is not in background, cat, dog")


def test_black_and_white_masks_have_two_labels() -> None:
    white = gray([[0, 255, 255, 0]] * 2)
    task = fitted(rows(white), labels=["background", "road"])
    assert (task.state.values, task.state.ignored) == ([0, 255], None)
    assert task.state.notes == ["train: masks hold 0 and 255 alone, so 255 is the second label: task.values=[0,255]"]
    assert task.encode(rows(white)[:])["mask"][0][:16] == bytes([0] * 4 + [1] * 8 + [0] * 4)
    # Where 1 occurs too, 255 means what it usually does.
    assert fitted(rows(gray([[0, 1, 255, 0]] * 2))).state.values == [0, 1]


def test_values_and_colors_may_be_declared() -> None:
    task = fitted(rows(gray([[0, 128, 64, 128]] * 2)), labels=["sky", "sea", "sand"], values=[0, 64, 128])
    assert task.state.indices(_read(gray([[0, 128, 64, 128]]))).tolist() == [[0, 2, 1, 2]]
    declared = {"labels": ["road", "car"], "colors": ["#804080", "#00008e"]}
    task = fitted(rows(colored([["#804080", "#00008e"] * 2] * 2)), **declared)
    assert task.state.indices(_read(colored([["#00008e", "#804080"]]))).tolist() == [[1, 0]]


def _read(found: dict[str, Any]) -> Any:
    from llmft.data.masks import read_mask

    return read_mask(found)


@pytest.mark.parametrize(
    ("mask", "options", "why"),
    [
        (gray([[0, 3, 1, 0]] * 2), {"labels": ["a", "b"]}, "has the value 3, and the labels have 0, 1: write task.la"),
        (gray([[0, 300, 1, 0]] * 2, numpy.uint16), {"labels": ["a", "b"], "values": [0, 1]}, "has the value 300 in 16"),
        (gray([[0, 7, 0, 0]] * 2), {"labels": ["a", "b"], "values": [0, 1], "ignore_index": None}, "has the value 7"),
        (colored([["#000001"] * 4] * 2), {"colors": ["#000000", "#ffffff"]}, "has the color #000001, which is not in"),
        (colored([["#000001"] * 4] * 2), {"labels": ["a", "b"], "values": [0, 1]}, "has RGB colors and no indices"),
        (gray(PIXELS), {"colors": ["#000000", "#ffffff"]}, "has indices, and task.colors is for masks of RGB colors"),
        (cell(Image.new("L", (4, 2)), "JPEG"), {"labels": ["a", "b"], "values": [0, 1]}, "is a JPEG, whose compress"),
        (gray([[0, 1, 1]] * 2), {"labels": ["a", "b"]}, "has 3 x 2 pixels, and its image 4 x 2"),
    ],
)
def test_masks_that_do_not_fit_are_named(mask: dict[str, Any], options: dict[str, Any], why: str) -> None:
    good = colored([["#000000", "#ffffff"] * 2] * 2) if "colors" in options else gray([[0, 1, 1, 0]] * 2)
    (problem,) = fitted(rows(good), **options).check(rows(good, mask), "test")
    assert problem.key == "images/1.png"
    assert why in problem.what


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (colored([["#000001"] * 4] * 2), "has RGB colors and no indices: write task.colors"),
        (gray([[0, 300, 1, 0]] * 2, numpy.uint16), "has the value 300 in 16 bits, like ids of instances"),
        (gray([[0] * 4] * 2), "must have two labels or more, got the value 0 alone in all masks of train"),
        (gray([[255] * 4] * 2), "must have the values 0 to 0 if no labels are declared, and 0 never occur in train"),
        (gray([[0, 5, 7, 255]] * 2), "must have the values 0 to 7 if no labels are declared, and 1, 2, 3, 4, 6 never"),
    ],
)
def test_labels_cannot_be_learned_from_every_mask(mask: dict[str, Any], why: str) -> None:
    assert [what for what in whys(rows(mask)) if why in what]


def test_images_of_one_size_are_not_resized() -> None:
    def size_of(*sides: tuple[int, int]) -> tuple[int, int]:
        cells = [cell(Image.new("RGB", pair)) for pair in sides]
        masks = [gray(numpy.arange(pair[0] * pair[1]).reshape(pair[::-1]) % 2) for pair in sides]
        data = Dataset.from_dict({"id": list("abc")[: len(sides)], "image": cells, "mask": masks})
        state = fitted(data, size=None).state
        return state.width, state.height

    assert size_of((40, 30), (40, 30)) == (40, 30)
    assert size_of((40, 30), (30, 40)) == (224, 224)
    assert size_of((600, 10)) == (224, 224)


def test_a_mask_has_the_size_of_the_upright_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # as of a camera that was turned
    turned = cell(Image.new("RGB", (2, 4)), "JPEG", exif=exif)
    task = fitted(rows(gray(PIXELS), image=turned))
    assert task.check(rows(gray(PIXELS), image=turned), "train") == []
    (problem,) = task.check(rows(gray(numpy.transpose(PIXELS)), image=turned), "train")
    assert problem.what.endswith("has 2 x 4 pixels, and its image 4 x 2, turned as its EXIF says")


def test_a_split_needs_a_pixel_with_a_label() -> None:
    nothing = gray([[255] * 4] * 2)
    task = fitted(rows(gray(PIXELS), nothing))
    assert task.check(rows(gray(PIXELS), nothing), "train") == []
    (problem,) = task.check(rows(nothing), "test")
    assert problem.key == "dataset.test"
    assert problem.what == "has no pixel with a label: all are 255, which task.ignore_index leaves out"


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_perfect_answer_is_the_mask_in_its_own_size(fit: str) -> None:
    rng = numpy.random.default_rng(0)
    # Blocks of 4 x 4 pixels, so that nothing is lost at half the size.
    mask = numpy.kron(rng.integers(0, 3, (6, 5)), numpy.ones((4, 4), int)).astype(numpy.uint8)
    data = rows(gray(mask), image=cell(Image.new("RGB", (20, 24))))
    task = fitted(data, fit=fit, size=[12, 16])
    features = task.encode(data[:])
    indices = numpy.frombuffer(features["mask"][0], numpy.uint8).reshape(12, 16)
    if fit == "pad":
        assert (indices[:, 10:] == 255).all()
        assert (indices[:, :10] == mask[::2, ::2]).all()
    (answer,) = task.decode([(indices, features["aside"][0])], [0])
    if fit == "pad":
        assert numpy.array_equal(from_text(answer["mask"]), mask)
        assert answer["answer"] == task.reference(data[0])["shares"]
        scores = task.score([answer], data)
        assert (scores["iou"], scores["pixel_accuracy"]) == (1.0, 1.0)
        score = task.row_score(answer, task.reference(data[0]))
        assert (score.part, score.error) == (1.0, 0.0)
    assert from_text(answer["mask"]).shape == mask.shape


def test_answers_are_shares_and_a_palette_png_with_names() -> None:
    task = fitted(rows(gray(PIXELS)), labels=["ground", "tree", "house"], size=8)
    indices = numpy.zeros((8, 8), numpy.uint8)
    indices[:, 4:] = 1
    (answer,) = task.decode([(indices, {"width": 4, "height": 2})], [0])
    assert answer["answer"] == {"ground": 0.5, "tree": 0.5, "house": 0.0}
    assert task.format_answer(answer["answer"]) == "ground 50.0%, tree 50.0%, house 0.0%"
    found = from_text(answer["mask"])
    assert found.tolist() == [[0, 0, 1, 1]] * 2


def test_a_mask_is_drawn_on_its_image() -> None:
    task = fitted(rows(gray(PIXELS)), labels=["ground", "tree", "house"])
    row = rows(gray(PIXELS))[0]
    reference = task.reference(row)
    for answer in ({"answer": reference}, {"answer": {}, "mask": reference["mask"]}):
        drawn = numpy.asarray(task.draw(row["image"], answer))
        assert drawn[0, 0].tolist() == [255, 0, 0]  # the background stays
        assert drawn[0, 2].tolist() == [127 + 64, 0, 0]  # the color of index 1 is 128, 0, 0
        assert drawn[1, 1].tolist() == [127, 64, 0]


def test_a_label_without_pixels_in_train_is_noted() -> None:
    data = rows(gray(PIXELS))
    task = fitted(data, labels=["a", "b", "c", "d"])
    assert task.notes_on(data, "train") == ["train: no pixel has the label d"]


def test_losses_by_hand() -> None:
    logits = torch.log(torch.tensor([[[[0.8, 0.4]], [[0.2, 0.6]]]]))  # (1, 2, 1, 2)
    labels = torch.tensor([[[0, 1]]])
    assert cross_entropy(logits, labels).item() == pytest.approx(-(numpy.log(0.8) + numpy.log(0.6)) / 2)
    # Of the first label 2 * 0.8 + 1 over 0.8 + 0.4 + 1 + 1, of the second 2 * 0.6 + 1 over 0.2 + 0.6 + 1 + 1.
    assert dice_loss(logits, labels).item() == pytest.approx(1 - (2.6 / 3.2 + 2.2 / 2.8) / 2)
    half = torch.tensor([[[0, 255]]])
    assert cross_entropy(logits, half).item() == pytest.approx(-numpy.log(0.8))
    assert dice_loss(logits, half).item() == pytest.approx(1 - (2.6 / 2.8 + 1 / 1.2) / 2)


@pytest.mark.parametrize("kind", ["ce", "dice", "ce+dice"])
def test_a_batch_without_labels_has_a_finite_loss_and_no_gradient(kind: str) -> None:
    task = fitted(rows(gray(PIXELS)), loss=kind)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Parameter(torch.randn(1, 3, 2, 4))

        def forward(self, pixel_values: torch.Tensor) -> Any:
            return type("Output", (), {"logits": self.weights.expand(len(pixel_values), -1, -1, -1)})

    model, batch = Model(), task.objective.collate([_feature(task, gray([[255] * 4] * 2))])
    loss = task.objective.loss(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert not model.weights.grad.any()  # type: ignore[union-attr]
    # Logits of a quarter of the sides, as SegFormer's, are enlarged.
    outputs, mean = SegmentationObjective(task).predict(model, batch)
    assert outputs[0].shape == (8, 16)
    assert outputs[0].dtype == numpy.uint8
    assert mean == 0.0


def _feature(task: SemanticSegmentation, mask: dict[str, Any]) -> dict[str, Any]:
    features = task.encode(rows(mask)[:])
    return {"pixels": features["pixels"][0], "mask": features["mask"][0]}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"labels": ["a", "a"]}, "each one once"),
        ({"values": [0, 1, 1]}, "each one once"),
        ({"labels": ["a", "b"], "values": [0, 1, 2]}, "one for each of 2 labels"),
        ({"values": [0, 1], "colors": ["#000000", "#ffffff"]}, "cannot both be set"),
        ({"colors": ["black", "#ffffff"]}, "pattern"),
        ({"fit": "crop"}, "stretch"),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Section(**options)


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_places_cannot_be_blended(option: str) -> None:
    with pytest.raises(UserError) as error:
        compose("finetune", ["+recipe=segmentation", "smoke=true", f"augment={option}"])
    (problem,) = error.value.problems
    assert problem.key == f"augment.{option}"
    assert problem.what == "blends the labels of two images, and those of task=semantic_segmentation are places"
