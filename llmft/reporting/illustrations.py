"""Inputs in a report: images, inside the page and small, what speaks for an answer, and what training sees."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy
from datasets import Dataset
from PIL import Image

from llmft.data.images import BadImage, Cell
from llmft.schema.config import Config
from llmft.tasks.explaining import Ask, explained
from llmft.tasks.optional import Draws, Explains
from llmft.tasks.task import Task
from llmft.training.batches import Drawn, collator
from llmft.training.evaluation import Split
from llmft.training.features import FeatureSet

SIDE = 224  # of an image beside an answer, in pixels: letters of 11 pixels can be read in it; 3 to 15 kB
SHEET, ACROSS = 24, 8  # images that training sees, and how many in a row: 40 to 150 kB
TILE = 104  # their side


def data_uri(image: Image.Image, side: int) -> str:
    """An RGB image as the source of an `img`, at most `side` pixels wide and high."""
    small = image.copy()
    small.thumbnail((side, side))
    stream = io.BytesIO()
    # Lossless where it is small anyway, as drawings and digits are.
    small.save(stream, "PNG", optimize=True)
    if stream.tell() > 8_000:
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=80)
    kind = "png" if stream.getvalue().startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def illustrated(
    row: dict[str, Any], cell: Cell | None, task: Task[Any], explanation: dict[str, Any] | None = None
) -> list[tuple[str, str]]:
    """The image of a row of RUN/predictions: what was answered, the reference where it looks different, and weights.

    Returns:
        for each its caption and its source; none for a task that draws nothing, or a file that is not there any more.
    """
    if cell is None or not isinstance(task, Draws):
        return []
    try:
        found = [("predicted", data_uri(task.draw(cell, row, SIDE), SIDE))]
        if row["label"] is not None:
            found.append(("true", data_uri(task.draw(cell, {"answer": row["label"]}, SIDE), SIDE)))
        if found[0][1] == found[-1][1]:  # such as labels, of which nothing is drawn
            found = [("", found[0][1])]
        if explanation and explanation["parts"]:
            shown = task.draw(cell, row | {"explanation": explanation}, SIDE)
            found.append((f"speaks for {task.format_answer(explanation['of'])}", data_uri(shown, SIDE)))
        if explanation and "parts" in (attention := explanation.get("attention", {})):
            shown = task.draw(cell, row | {"explanation": attention}, SIDE)
            found.append(("attention of the last layer, which is not an explanation", data_uri(shown, SIDE)))
    except BadImage:
        return []
    return found


@dataclass(frozen=True)
class Inputs:
    """The rows of a split by their ids, for what a report shows beside the answers of RUN/predictions."""

    rows: Dataset | None = None
    ask: Ask | None = None
    """Gives the answers of the model to other rows, by which answers are explained."""

    @classmethod
    def of(cls, splits: Mapping[str, Split], name: str, ask: Ask | None = None) -> Self:
        """Those of a split, if it is there."""
        return cls(splits[name].rows if name in splits else None, ask)

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each row by its id."""
        return {} if self.rows is None else {row: place for place, row in enumerate(self.rows["id"])}

    def row(self, row: dict[str, Any]) -> Dataset | None:
        """The row that a row of RUN/predictions answers, alone."""
        place = self.places.get(row["id"])
        return None if place is None or self.rows is None else self.rows.select([place])

    def cell(self, row: dict[str, Any]) -> Cell | None:
        """Its image."""
        found = self.row(row)
        return found["image"][0] if found is not None and "image" in found.column_names else None

    def explanation(self, row: dict[str, Any], task: Task[Any]) -> dict[str, Any] | None:
        """What speaks for its answer; None for a task that cannot tell, or an input that is not there any more."""
        found = self.row(row)
        if found is None or self.ask is None or not isinstance(task, Explains):
            return None
        try:
            return explained(task, found, [row], self.ask)[0]
        except (BadImage, OSError):
            return None


def contact_sheet(config: Config, task: Task[Any], splits: Mapping[str, Split]) -> tuple[str, str] | None:
    """What training sees of its first rows in its first epoch, augmented: a caption, and the source of an `img`."""
    if not (config.trains and config.task.images and "train" in splits):
        return None
    features = splits["train"].features
    if not isinstance(features, FeatureSet):
        return None
    # The first rows, not random ones: a report of the same run is the same.
    numbers = list(range(min(SHEET, len(features))))
    augments = task.objective.augments and config.augment.active
    rows = (Drawn(features, config.seed) if augments else features).__getitems__(numbers)
    pixels = collator(config, task)(rows)["pixel_values"].float().cpu().numpy().transpose(0, 2, 3, 1)
    # Normalization undone, so that what is shown is what went in, mixed images included.
    shown = numpy.clip((pixels * task.state.std + task.state.mean) * 255, 0, 255).round().astype(numpy.uint8)
    height, width = (round(side * TILE / max(shown.shape[1:3])) for side in shown.shape[1:3])
    sheet = Image.new("RGB", (ACROSS * (width + 4), -(-len(numbers) // ACROSS) * (height + 4)), "white")
    for number, image in enumerate(shown):
        tile = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGB")
        row, column = divmod(number, ACROSS)
        sheet.paste(tile.resize((width, height), Image.Resampling.BILINEAR), (column * (width + 4), row * (height + 4)))
    how = f"augment={config.augment.name}" if augments else "without augmentation"
    return f"{len(numbers)} rows of train as the model reads them in the first epoch, {how}", data_uri(sheet, 10_000)
