"""Boxes drawn on an image, with their labels, as `llmft predict` and the report show them."""

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000", "#808000", "#000075")
"""Of the labels in turn: dark enough for white letters on them."""
WIDTH = 200  # of a line, so that it is a half of a percent of the shorter side
LEAST = 11  # height of letters in pixels; smaller ones cannot be read


def shrunk(image: Image.Image, side: int | None) -> tuple[Image.Image, float]:
    """An image of at most `side` pixels in width and height, and how much smaller it is than the given one."""
    scale = min(side / max(image.size), 1.0) if side else 1.0
    if scale == 1.0:
        return image, scale
    width, height = (max(round(scale * value), 1) for value in image.size)
    # Averages, and no lines yet: letters and boxes are drawn on the small image, so that they stay sharp.
    return image.resize((width, height), Image.Resampling.BOX), scale


def draw_boxes(image: Image.Image, boxes: Sequence[dict[str, Any]], labels: Sequence[str]) -> Image.Image:
    """A copy of an RGB image with a rectangle for each box, in the color of its label, below its label and score.

    The surest box comes last, so that it is on top. Crowds have thin lines.

    Args:
        boxes: each with `box` (x, y, width, height in pixels) and `label`; `score` and `crowd` if there are any.
        labels: all labels, which decide the colors.
    """
    found = image.copy()
    pen = ImageDraw.Draw(found)
    line = max(round(min(image.size) / WIDTH), 1)
    font = ImageFont.load_default(max(min(image.size) // 40, LEAST))
    for box in sorted(boxes, key=lambda part: float(part.get("score", 1))):
        left, top, width, height = box["box"]
        number = labels.index(box["label"]) if box["label"] in labels else 0
        color = COLORS[number % len(COLORS)]
        # The far side is exclusive: the last pixel of a box is the one before it.
        corners = (left, top, max(left + width - 1, left), max(top + height - 1, top))
        pen.rectangle(corners, outline=color, width=1 if box.get("crowd") else line)
        text = f"{box['label']} {box['score']:.2f}" if "score" in box else box["label"]
        x0, y0, x1, y1 = pen.textbbox((0, 0), text, font=font)
        # Above the box; inside it where there is no room.
        place = (left, top - (y1 - y0) - 4) if top >= y1 - y0 + 4 else (left, top)
        pen.rectangle((*place, place[0] + x1 - x0 + 3, place[1] + y1 - y0 + 3), fill=color)
        pen.text((place[0] + 2 - x0, place[1] + 2 - y0), text, fill="white", font=font)
    return found
