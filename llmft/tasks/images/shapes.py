"""Drawn images for smoke runs, tests, and the samples: circles, squares, and triangles on a plain background."""

import io
import math
import random
from typing import Any, NamedTuple

import numpy
from PIL import Image

from llmft.data.masks import write_mask

TILT = 0.4  # radians by which a shape is turned to either side, at most
KINDS = ("circle", "square", "triangle")
COLORS = ((200, 60, 50), (60, 150, 70), (60, 90, 190), (230, 150, 40), (130, 70, 160))


class Shape(NamedTuple):
    """One shape: its kind, and the box [x, y, width, height] in pixels around it."""

    kind: str
    box: list[int]


class Scene(NamedTuple):
    """An image, which shape each pixel belongs to, and the shapes."""

    picture: numpy.ndarray
    """uint8 (side, side, 3)."""
    mask: numpy.ndarray
    """uint8 (side, side): 0 for the background, 1, 2, 3 for KINDS."""
    shapes: list[Shape]


def draw(rng: random.Random, kinds: list[str], side: int, telling: bool = False) -> Scene:
    """An image with at most four shapes, each in a quarter of its own; a single one may stand anywhere.

    Args:
        telling: whether each kind has a color of its own, which a tiny model learns in a few steps.
    """
    # Brighter than every color, so that a shape never vanishes in the background.
    shade = rng.randint(170, 245)
    picture = numpy.full((side, side, 3), shade, numpy.uint8)
    mask = numpy.zeros((side, side), numpy.uint8)
    # Quarters do not overlap: a shape behind another would have a wrong box.
    room = side if len(kinds) == 1 else side // 2
    corners = [(x, y) for y in range(0, side - room + 1, room) for x in range(0, side - room + 1, room)]
    rng.shuffle(corners)
    shapes = []
    for kind, (left, top) in zip(kinds, corners, strict=False):
        # Large enough to tell apart: of radius 12, a circle has 452 pixels and the square inside it 288.
        radius = rng.uniform(0.25, 0.45) * room
        x, y = (start + rng.uniform(radius, room - radius) for start in (left, top))
        inside = _inside(kind, side, x, y, radius, rng.uniform(-TILT, TILT))
        picture[inside] = COLORS[KINDS.index(kind)] if telling else rng.choice(COLORS)
        mask[inside] = 1 + KINDS.index(kind)
        rows, columns = numpy.flatnonzero(inside.any(axis=1)), numpy.flatnonzero(inside.any(axis=0))
        width, height = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
        shapes.append(Shape(kind, [int(columns[0]), int(rows[0]), int(width), int(height)]))
    return Scene(picture, mask, shapes)


def _inside(kind: str, side: int, x: float, y: float, radius: float, angle: float) -> numpy.ndarray:
    """Which pixels (side, side) belong to a shape around (x, y): those whose middle it covers."""
    down, across = numpy.mgrid[0:side, 0:side] + 0.5
    across, down = across - x, down - y
    if kind == "circle":
        return across**2 + down**2 <= radius**2
    # A regular polygon is what lies on the inner side of all its edges.
    corners = 4 if kind == "square" else 3
    turns = [angle + math.pi / 2 + 2 * math.pi * edge / corners for edge in range(corners)]
    return numpy.all(
        [across * math.cos(turn) + down * math.sin(turn) <= radius * math.cos(math.pi / corners) for turn in turns],
        axis=0,
    )


def png(pixels: numpy.ndarray) -> dict[str, Any]:
    """Pixels as a cell with the bytes of a PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"path": None, "bytes": stream.getvalue()}


def classified(
    rows: int, seed: int, problem: str = "single_label", kinds: tuple[str, ...] = KINDS[1:], telling: bool = True
) -> dict[str, list[Any]]:
    """Rows of `image_classification`: `label` is the shape, which shapes there are, or the share that one covers."""
    rng = random.Random(seed)  # seeded, so that smoke runs and their pinned losses repeat
    images, labels = [], list[Any]()
    for index in range(rows):
        several = [kind for bit, kind in enumerate(kinds) if index >> bit & 1]
        scene = draw(rng, several if problem == "multi_label" else [kinds[index % len(kinds)]], 48, telling)
        images.append(png(scene.picture))
        if problem == "multi_label":
            labels.append(several)
        else:
            labels.append(scene.shapes[0].kind if problem == "single_label" else float((scene.mask > 0).mean()))
    return {"image": images, "label": labels}


def scenes(rows: int, seed: int, side: int = 64, telling: bool = False) -> dict[str, list[Any]]:
    """Rows with 1 to 3 shapes each: `image`, `boxes` as detection has them, and `mask` as segmentation has it."""
    rng = random.Random(seed)
    found: dict[str, list[Any]] = {"image": [], "boxes": [], "mask": []}
    for _ in range(rows):
        scene = draw(rng, rng.choices(KINDS, k=rng.randint(1, 3)), side, telling)
        found["image"].append(png(scene.picture))
        found["mask"].append({"path": None, "bytes": write_mask(scene.mask, ["background", *KINDS])})
        found["boxes"].append([{"box": shape.box, "label": shape.kind, "crowd": False} for shape in scene.shapes])
    return found
