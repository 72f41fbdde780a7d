"""Semantic segmentation: what each pixel of an image shows."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy
from PIL import Image

from llmft.data.checks import few
from llmft.data.images import Cell, as_array, name_of, open_image
from llmft.data.masks import (
    PALETTE,
    Mask,
    Summary,
    from_text,
    names_in,
    numbers_of,
    read_mask,
    summarize,
    summary_of,
    to_text,
    upright_size,
    write_mask,
)
from llmft.data.source import Rows, listed
from llmft.metrics.segmentation_metrics import confusion_of, mean_of_found, overlaps_of, segmentation_metrics
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError, plural
from llmft.schema.tasks import IGNORED_PIXEL
from llmft.tasks.explaining import Ask, Subject
from llmft.tasks.images import config as sections
from llmft.tasks.images import shapes
from llmft.tasks.images.drawing import shrunk
from llmft.tasks.images.occlusion import draw_weights, explain_image
from llmft.tasks.images.pixels import ImageState, encode_pixels, learn_pixels, place, resize
from llmft.tasks.padding import Arrays
from llmft.tasks.task import Answer, Features, RowScore, Task

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

WHITE = [0, 255]
"""The values of masks that many programs write for one kind of thing: black and white."""
NO_COLORS = "has RGB colors and no indices: write task.colors, the color of each label"
SIXTEEN_BITS = "in 16 bits, like ids of instances: a mask holds an index for each label"
LEAST, KEPT = 8, 512  # pixels: images of one size between these are not resized, where no size is given
SEEN = 1000  # masks of train that are searched for WHITE where labels are declared: reading all takes 1 ms each


@dataclass(kw_only=True)
class SegmentationState(ImageState):
    """The labels, how masks write them, and how images become pixels."""

    labels: list[str]
    values: list[int]
    """The value of each label in a mask; of a color 65536 * red + 256 * green + blue."""
    colored: bool = False
    """Whether masks have colors and not indices."""
    ignored: int | None = IGNORED_PIXEL
    """The value of pixels without a label."""
    remarks: list[str] = field(default_factory=list)
    """What was found out about the masks of train, where the config does not say it."""

    @property
    def notes(self) -> list[str]:
        return self.remarks

    @property
    def description(self) -> str:
        return f"{plural(len(self.labels), 'labels')}: {few(self.labels)}"

    def indices(self, mask: Mask) -> numpy.ndarray:
        """The index of the label of each pixel, (height, width) uint8, IGNORED_PIXEL where there is none.

        Raises:
            ValueError: naming a value that no label has.
        """
        found = summarize(mask)
        indices = numpy.array(self.indices_in(found), numpy.uint8)
        values = numbers_of(mask)
        if self.colored:
            return indices[numpy.searchsorted(found.values, values)]
        table = numpy.zeros(found.values[-1] + 1, numpy.uint8)
        table[found.values] = indices
        return table[values]

    def indices_in(self, found: Summary) -> list[int]:
        """The index of the label of each value that occurs in a mask; see `indices`."""
        if found.colored != self.colored:
            if self.colored:
                raise ValueError("has indices, and task.colors is for masks of RGB colors")
            raise ValueError(NO_COLORS)
        # Of masks that name their indices, each by itself: two files need not number the same labels alike.
        known = dict(zip(self.values, range(len(self.labels)), strict=True))
        ignored = self.ignored
        if found.labels is not None:
            index = {label: number for number, label in enumerate(self.labels)}
            known = {number: index[label] for number, label in enumerate(found.labels) if label in index}
            ignored = IGNORED_PIXEL
        if ignored is not None:
            known.setdefault(ignored, IGNORED_PIXEL)
        if wrong := [value for value in found.values if value not in known]:
            raise ValueError(self._undeclared(found, wrong))
        return [known[value] for value in found.values]

    def _undeclared(self, found: Summary, values: list[int]) -> str:
        if found.labels is not None:
            return f"has the label {few([found.labels[value] for value in values])}, which is not in {few(self.labels)}"
        if self.colored:
            return f"has the color {few([f'#{value:06x}' for value in values[:3]])}, which is not in task.colors"
        shown = few([str(value) for value in values[:3]])
        if found.wide:
            return f"has the value {shown} {SIXTEEN_BITS}"
        return f"has the value {shown}, and the labels have {few(list(map(str, self.values)))}: write task.labels"


class SemanticSegmentation(Task[SegmentationState]):
    """Where is the road, which pixels are cells?"""

    config = sections.SemanticSegmentation
    head = "AutoModelForSemanticSegmentation"
    state_class = SegmentationState
    objective_class = "llmft.tasks.images.segmentation_objective:SegmentationObjective"
    default_input_role = "image"
    reads = "mask"
    options: sections.SemanticSegmentation

    @property
    def columns(self) -> dict[str, Column]:
        return {"image": Column("image"), "mask": Column("image", target=True)}

    def learn(self, train: "Dataset", model: ModelConfig) -> SegmentationState:
        options = self.options
        if options.size is None and model.first_weights != "pretrained" and (size := _common_size(train)):
            options = options.model_copy(update={"size": size})
        return SegmentationState(**learn_pixels(options, model), **_declared(options, train))

    def model_kwargs(self) -> dict[str, Any]:
        state = self.state
        return {
            "num_labels": len(state.labels),
            "id2label": dict(enumerate(state.labels)),
            "label2id": {label: index for index, label in enumerate(state.labels)},
            "semantic_loss_ignore_index": IGNORED_PIXEL,
            "image_size": state.height if state.height == state.width else [state.height, state.width],
            "num_channels": state.channels,
        }

    def check(self, rows: Rows, split: str) -> list[Problem]:
        """Masks of another size than their images, and values without a label; a split without any labeled pixel."""
        if "mask" not in rows.column_names:
            return []
        problems: list[Problem] = []
        labeled = False
        for row in rows:
            try:
                problems += size_problem(row)
                labeled = set(self.state.indices_in(summary_of(row["mask"]))) != {IGNORED_PIXEL} or labeled
            except (ValueError, OSError) as error:
                problems.append(Problem(row["id"], f"the mask {name_of(row['mask'])} {error}"))
        if not problems and not labeled:
            what = f"has no pixel with a label: all are {self.state.ignored}, which task.ignore_index leaves out"
            problems.append(Problem(f"dataset.{split}", what))
        return listed(problems)

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        pixels, sizes = encode_pixels(rows["image"], rows["id"], self.state)
        features: Features = {"pixels": pixels, "row": list(range(len(pixels)))}
        features["aside"] = [{"width": width, "height": height} for width, height in sizes]
        if "mask" in rows:
            indices = (Image.fromarray(self.state.indices(read_mask(cell))) for cell in rows["mask"])
            features["mask"] = [resize(image, self.state, "nearest", IGNORED_PIXEL).tobytes() for image in indices]
        return features

    def collate(self, features: list[dict[str, Any]]) -> Arrays:
        return {"pixel_values": self.state.pixel_values(features)}

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        """The share of each label, and the mask in the size of the image as a PNG with a palette, in base64."""
        return [self._answer(numpy.asarray(indices, numpy.uint8), **aside) for indices, aside in outputs]

    def _answer(self, indices: numpy.ndarray, width: int, height: int) -> Answer:
        state = self.state
        at = place(width, height, state)  # without the filling of `fit: pad`
        box = (at.left, at.top, at.left + at.scale_x * width, at.top + at.scale_y * height)
        image = Image.fromarray(indices).resize((width, height), Image.Resampling.NEAREST, box=box)
        found = numpy.asarray(image)
        return {"answer": self._shares(found), "mask": to_text(write_mask(found, state.labels))}

    def _shares(self, indices: numpy.ndarray) -> dict[str, float]:
        """The share of each label of the pixels that have one."""
        counts = numpy.bincount(indices.ravel(), minlength=256)[: len(self.state.labels)]
        return dict(zip(self.state.labels, (counts / max(counts.sum(), 1)).tolist(), strict=True))

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        confusions = [
            confusion_of(from_text(answer["mask"]), self.state.indices(read_mask(cell)), len(self.state.labels))
            for answer, cell in zip(answers, references["mask"], strict=True)
        ]
        return segmentation_metrics(confusions, self.state.labels, self.options.background)

    def output_difference(self, original: list[Any], exported: list[Any]) -> float:
        """The share of pixels that two models give another label."""
        apart = [(one != other).mean() for one, other in zip(original, exported, strict=True)]
        return float(numpy.mean(apart))

    def notes_on(self, rows: "Dataset | None", split: str, features: "pyarrow.Table | None" = None) -> list[str]:
        """Labels that no pixel of the training rows has."""
        if rows is None or split != "train" or "mask" not in rows.column_names:
            return []
        found = {index for cell in rows["mask"] for index in self.state.indices_in(summary_of(cell))}
        without = [label for index, label in enumerate(self.state.labels) if index not in found]
        return [f"{split}: no pixel has the label {few(without)}"] if without else []

    def format_input(self, row: dict[str, Any]) -> str:
        return name_of(row["image"])

    def reference(self, row: dict[str, Any]) -> Any:
        """The shares of the labels, and the mask as answers have it; None if there is none."""
        if row.get("mask") is None:
            return None
        indices = self.state.indices(read_mask(row["mask"]))
        return {"shares": self._shares(indices), "mask": to_text(write_mask(indices, self.state.labels))}

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """The IoU of the image, a mean over labels that it or the answer has, and how far it is from 1."""
        labels = list(reference["shares"])  # a run is compared with another one without its state
        confusion = confusion_of(from_text(answer["mask"]), from_text(reference["mask"]), len(labels))
        found = mean_of_found(overlaps_of(confusion)[0][self.options.background :])
        return RowScore("iou_by_image", found, error=1 - found, why=f"IoU {found:.3f}")

    def explain(self, rows: Rows, answers: list[Answer], ask: Ask) -> list[dict[str, Any]]:
        """What speaks for the label that has the largest share of each image, but for the background."""
        explained = []
        for cell, answer in zip(rows["image"], answers, strict=True):
            shares = answer["answer"]
            front = self.state.labels[int(self.options.background) :]
            # An image of background alone is explained by that.
            label = max((name for name in front if shares[name]), key=shares.__getitem__, default=self.state.labels[0])
            subject = Subject(label, "share", lambda other, label=label: other["answer"][label])  # type: ignore[misc]
            explained.append(explain_image(cell, subject, self.state, ask))
        return explained

    def draw(self, cell: Cell, answer: Answer, side: int | None = None) -> Image.Image:
        """The image with the colors of a mask laid over it, half clear; the background stays as it is.

        Of an answer that is explained, the weights of the parts of the image instead.
        """
        whole = as_array(open_image(cell), 3)
        if "explanation" in answer:
            return shrunk(draw_weights(whole, answer["explanation"]), side)[0]
        image = numpy.array(whole)
        mask = from_text(answer["mask"] if "mask" in answer else answer["answer"]["mask"])
        colors = numpy.array(PALETTE, numpy.uint8).reshape(-1, 3)
        shown = mask != 0 if self.options.background else numpy.ones_like(mask, bool)
        image[shown] = image[shown] // 2 + colors[mask[shown]] // 2
        return shrunk(Image.fromarray(image), side)[0]

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Images of circles, squares, and triangles; see shapes.py."""
        found = shapes.scenes(rows, seed, telling=True)
        return {"image": found["image"], "mask": found["mask"]}


def _declared(options: sections.SemanticSegmentation, train: "Dataset") -> dict[str, Any]:
    """The fields of a SegmentationState that are about masks: as the config says, else as masks of train are.

    Raises:
        UserError: for masks that cannot be read, or of fewer than two labels.
    """
    if options.colors:
        values = [int(color.removeprefix("#"), 16) for color in options.colors]
        return {"labels": options.labels or options.colors, "values": values, "colored": True, "ignored": None}
    named = dict.fromkeys(name for cell in train["mask"] for name in names_in(cell))
    if named:
        labels = options.labels or list(named)
        return {"labels": labels, "values": list(range(len(labels)))}
    ignored, remarks = options.ignore_index, []
    if not (values := options.values or []):
        found = _found(train.select(range(min(SEEN, len(train)))) if options.labels else train)
        if found == WHITE and ignored == IGNORED_PIXEL and len(options.labels or found) == 2:
            values, ignored = found, None
            remarks.append("train: masks hold 0 and 255 alone, so 255 is the second label: task.values=[0,255]")
        else:
            most = max((value for value in found if value != ignored), default=0)
            values = list(range(len(options.labels or range(most + 1))))
            # A value that is far from the others, such as a lost pixel of an editor, must not make a hundred labels.
            if not options.labels and (gaps := [value for value in values if value not in found]):
                what = f"must have the values 0 to {most} if no labels are declared, and {few(list(map(str, gaps)))} "
                hint = "Write task.labels, or task.values, the value of each label."
                raise UserError(Problem("dataset.columns.mask", f"{what}never occur in train", hint=hint), "the data")
    labels = options.labels or list(map(str, values))
    if not options.labels:
        remarks.append(f"train: labels are called by their values in masks, {few(labels)}: task.labels names them")
    if len(labels) < 2:
        what = f"must have two labels or more, got the value {labels[0]} alone in all masks of train"
        raise UserError(Problem("dataset.columns.mask", what), "the data")
    return {"labels": labels, "values": values, "ignored": ignored, "remarks": remarks}


def _found(rows: "Dataset") -> list[int]:
    """The values in masks, sorted.

    Raises:
        UserError: naming masks that cannot be read, or that have no indices.
    """
    found: set[int] = set()
    problems = []
    for row in rows:
        try:
            mask = summary_of(row["mask"])
            if mask.colored:
                raise ValueError(NO_COLORS)
            if mask.values[-1] > IGNORED_PIXEL:
                raise ValueError(f"has the value {mask.values[-1]} {SIXTEEN_BITS}")
            found.update(mask.values)
        except (ValueError, OSError) as error:
            problems.append(Problem(row["id"], f"the mask {name_of(row['mask'])} {error}"))
    if problems:
        raise UserError(listed(problems), "the data")
    return sorted(found)


def _common_size(train: "Dataset") -> list[int] | None:
    """Height and width of the training images if all have the same, which is small enough to be kept; else None."""
    try:
        sizes = {upright_size(cell) for cell in train["image"]}
    except OSError:
        return None  # `encode` names the images that cannot be read
    ((width, height), *others) = sizes
    return None if others or max(width, height) > KEPT or min(width, height) < LEAST else [height, width]


def size_problem(row: dict[str, Any]) -> list[Problem]:
    """A problem for a mask that has another size than its upright image."""
    size, wanted = summary_of(row["mask"]).size, upright_size(row["image"])
    if size == wanted:
        return []
    what = f"the mask {name_of(row['mask'])} has {size[0]} x {size[1]} pixels, and its image {wanted[0]} x {wanted[1]}"
    what += ", turned as its EXIF says" if size == wanted[::-1] else ""
    return [Problem(row["id"], what, hint="Save the mask in the size of the image.")]
