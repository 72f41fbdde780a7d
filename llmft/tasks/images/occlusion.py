"""Which parts of an image speak for an answer: each is hidden in turn, and the model is asked again.

After Zeiler and Fergus 2014 (https://arxiv.org/abs/1311.2901, section 4.2). It needs nothing of the model but its
answers, so it works for every architecture, for a frozen encoder, and for an export.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy
from PIL import Image

from llmft.data.image_files import netpbm
from llmft.data.images import Cell, as_array, open_image
from llmft.data.source import Rows, Table
from llmft.tasks.images.pixels import ImageState, place, resize
from llmft.tasks.task import Answer

GRID = 7  # parts along a side: 49 answers more for each image, and a part of 32 pixels of 224
LEAST = 1e-9  # scores closer to 0 or 1 than this are not told apart


def explain_image(cell: Cell, answer: Answer, state: ImageState, ask: Callable[[Rows], list[Answer]]) -> dict[str, Any]:
    """What speaks for an answer, and how much.

    Args:
        cell: the image.
        answer: what the model says of it: a label, several labels, or a number.
        ask: gives the answers of the model to other rows.

    Returns:
        `of`, the label that is explained, which is the most probable one, or None for a number; and `parts`, each with
        its `box` (x, y, width, height in pixels of the upright image), and its `weight`: by how much the log-odds of
        the label, or the number, fall when it is hidden. What `fit: crop` cuts off is in no part.
    """
    image = as_array(open_image(cell), state.channels)
    seen = numpy.asarray(resize(image, state, state.resample, state.fill))
    # Of the middle, which the model sees: the margin is for random parts in training.
    start = state.margin // 2
    sides = (state.height, state.width)
    edges = [start + numpy.linspace(0, side, GRID + 1).round().astype(int) for side in sides]
    parts = [
        (slice(top, bottom), slice(left, right))
        for top, bottom in zip(edges[0], edges[0][1:], strict=False)
        for left, right in zip(edges[1], edges[1][1:], strict=False)
    ]
    label = None if isinstance(answer["answer"], float) else max(answer["scores"], key=answer["scores"].__getitem__)
    # The whole is asked again with the parts: the first answer was given to an image that was resized once less.
    first, *others = ask(as_rows([seen, *(hide(seen, [part], state.fill) for part in parts)]))
    whole = strength(first, label)
    at = place(image.width, image.height, state)
    return {
        "of": label,
        "parts": [
            {"box": _box(part, at, image.size), "weight": whole - strength(other, label)}
            for part, other in zip(parts, others, strict=True)
        ],
    }


def hide(pixels: numpy.ndarray, parts: list[tuple[slice, slice]], fill: int) -> numpy.ndarray:
    """A copy of an image (height, width, ...) with some parts in one gray."""
    found = pixels.copy()
    for part in parts:
        found[part] = fill
    return found


def as_rows(images: list[numpy.ndarray]) -> Table:
    """Rows with these images, uint8 (height, width) or (height, width, 3)."""
    # Netpbm, which is a header and the pixels: a PNG takes ten times as long to write and read.
    return Table({"image": list(map(netpbm, images))}, list(map(str, range(len(images)))))


def strength(answer: Answer, label: str | None) -> float:
    """The log-odds of a label, which probabilities near 1 do not hide; without a label, the number that was said."""
    if label is None:
        return float(answer["answer"])
    score = min(max(answer["scores"][label], LEAST), 1 - LEAST)
    return math.log(score / (1 - score))


def _box(part: tuple[slice, slice], at: Any, size: tuple[int, int]) -> list[float]:
    """A part of the kept pixels as a box in the image, cut at its border."""
    down, across = part
    left, right = ((edge - at.left) / at.scale_x for edge in (across.start, across.stop))
    top, bottom = ((edge - at.top) / at.scale_y for edge in (down.start, down.stop))
    left, right = (float(min(max(edge, 0), size[0])) for edge in (left, right))
    top, bottom = (float(min(max(edge, 0), size[1])) for edge in (top, bottom))
    return [left, top, right - left, bottom - top]


def draw_weights(image: Image.Image, explanation: dict[str, Any]) -> Image.Image:
    """An RGB image with its parts colored by their weights: red speaks for the label, blue against it."""
    pixels = numpy.array(image)
    most = max((abs(part["weight"]) for part in explanation["parts"]), default=0.0) or 1.0
    for part in explanation["parts"]:
        left, top, width, height = part["box"]
        place_of = (slice(round(top), round(top + height)), slice(round(left), round(left + width)))
        share = 0.6 * abs(part["weight"]) / most
        color = numpy.array([220, 30, 30] if part["weight"] > 0 else [30, 60, 220])
        pixels[place_of] = ((1 - share) * pixels[place_of] + share * color).astype(numpy.uint8)
    return Image.fromarray(pixels)
