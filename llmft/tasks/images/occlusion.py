"""Which parts of an image speak for an answer: each is hidden in turn, and the model is asked again."""

from typing import Any

import numpy
from PIL import Image

from llmft.data.image_files import netpbm
from llmft.data.images import Cell, as_array, open_image
from llmft.data.source import Table
from llmft.tasks.explaining import Ask, Subject
from llmft.tasks.images.pixels import ImageState, place, resize

GRID = 7  # parts along a side: 49 answers more for each image, and a part of 32 pixels of 224


def explain_image(cell: Cell, subject: Subject, state: ImageState, ask: Ask) -> dict[str, Any]:
    """What speaks for an answer, and how much.

    Args:
        cell: the image.
        subject: what is explained. The answers that it is shown have boxes in pixels of what the model sees.
        ask: gives the answers of the model to other images.

    Returns:
        see `Subject.explanation`. Each part has its `box`: x, y, width, height in pixels of the upright image. What
        `fit: crop` cuts off is in no part.
    """
    image = as_array(open_image(cell), state.channels)
    # Hidden in what the model sees: 50 copies of a photo of 12 megapixels would take 2 GB.
    seen = numpy.asarray(resize(image, state, state.resample, state.fill))
    places = _grid(state, GRID, GRID)
    at = place(image.width, image.height, state)
    answers = ask(as_rows([seen, *(hide(seen, [part], state.fill) for part in places)]))
    whole, *others = map(subject.strength, answers)
    return subject.explanation([{"box": _box(part, at, image.size)} for part in places], whole, others)


def patch_boxes(cell: Cell, state: ImageState, rows: int, columns: int) -> list[list[float]]:
    """The parts of what a model sees as boxes in the image, row by row."""
    image = open_image(cell)
    at = place(image.width, image.height, state)
    return [_box(part, at, image.size) for part in _grid(state, rows, columns)]


def _grid(state: ImageState, rows: int, columns: int) -> list[tuple[slice, slice]]:
    """Parts of the kept pixels, row by row."""
    # Of the middle, which the model sees: the margin is for random parts in training.
    start = state.margin // 2
    sides = ((state.height, rows), (state.width, columns))
    edges = [start + numpy.linspace(0, side, count + 1).round().astype(int) for side, count in sides]
    return [
        (slice(top, bottom), slice(left, right))
        for top, bottom in zip(edges[0], edges[0][1:], strict=False)
        for left, right in zip(edges[1], edges[1][1:], strict=False)
    ]


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
