"""Images in a report, inside the page and small: the inputs of answers, with what was answered, and of training."""

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy
from datasets import Dataset
from PIL import Image

from llmft.data.images import BadImage, Cell
from llmft.schema.config import Config
from llmft.tasks.optional import Draws, Explains
from llmft.tasks.task import Answer, Task
from llmft.training.batches import Drawn, collator
from llmft.training.evaluation import Split
from llmft.training.features import FeatureSet

Ask = Callable[[Dataset], list[Answer]]
"""Gives the answers of the model to rows."""
SIDE = 160  # of a picture beside an answer, in pixels: 3 to 8 kB
SHEET, ACROSS = 24, 8  # images that training sees, and how many in a row: 40 to 150 kB
TILE = 104  # their side


def data_uri(image: Image.Image, side: int) -> str:
    """An RGB image as the source of an `img`, at most `side` pixels wide and high."""
    small = image.copy()
    small.thumbnail((side, side))
    stream = io.BytesIO()
    # Lossless where it is small anyway, as drawn pictures and digits are.
    small.save(stream, "PNG", optimize=True)
    if stream.tell() > 8_000:
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=80)
    kind = "png" if stream.getvalue().startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def illustrated(
    row: dict[str, Any], cell: Cell | None, task: Task[Any], ask: Ask | None = None
) -> list[tuple[str, str]]:
    """The image of a row of RUN/predictions: what was answered, and the reference where it looks different.

    Args:
        ask: gives answers to other rows. With it, the answer is explained, where the task does.

    Returns:
        for each its caption and its source; none for a task that draws nothing, or a file that is not there any more.
    """
    if cell is None or not isinstance(task, Draws):
        return []
    try:
        if ask is not None and isinstance(task, Explains):
            (explanation,) = task.explain(Dataset.from_dict({"id": [row["id"]], "image": [cell]}), [row], ask)
            shown = data_uri(task.draw(cell, row | {"explanation": explanation}), SIDE)
            return [("", data_uri(task.draw(cell, row), SIDE)), (f"speaks for {explanation['of']}", shown)]
        found = [("predicted", data_uri(task.draw(cell, row), SIDE))]
        if row["label"] is not None:
            found.append(("true", data_uri(task.draw(cell, {"answer": row["label"]}), SIDE)))
    except BadImage:
        return []
    return [("", found[0][1])] if len({source for _, source in found}) == 1 else found


def cells_of(splits: Mapping[str, Split], name: str) -> dict[str, Cell]:
    """The images of a split by the ids of its rows; none for a task without."""
    if name not in splits or "image" not in splits[name].rows.column_names:
        return {}
    return {row["id"]: row["image"] for row in splits[name].rows.select_columns(["id", "image"])}


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
