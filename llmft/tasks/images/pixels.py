"""From an image to pixels of one size, once, before training: what tasks on images share. Pillow and numpy alone."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from PIL import Image

from llmft.data.images import ONE_PIXEL, BadImage, Cell, as_array, open_image, problem
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.images.config import ImageConfig
from llmft.tasks.task import State

RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
}


@dataclass
class ImageState(State):
    """How an image becomes what the model reads."""

    height: int
    """Of what the model sees, in pixels."""
    width: int
    channels: int
    """3 for red, green, and blue; 1 for gray."""
    mean: list[float]
    """By channel, on the scale from 0 to 1: (pixel / 255 - mean) / std."""
    std: list[float]
    resample: str
    fit: str
    """See `ImageConfig.fit`."""
    margin: int = 0
    """How much larger the kept pixels are than `height` and `width`, so that training can cut out random parts."""

    @property
    def fill(self) -> int:
        """The gray of `fit: pad`: near 0 for the model."""
        return round(255 * sum(self.mean) / len(self.mean))

    def pixel_values(self, features: list[dict[str, Any]]) -> numpy.ndarray:
        """What the model reads of the `pixels` of features, not augmented: float32 (B, channels, height, width)."""
        kept = numpy.frombuffer(b"".join([feature["pixels"] for feature in features]), numpy.uint8)
        side = self.margin // 2
        kept = kept.reshape(len(features), self.height + self.margin, self.width + self.margin, self.channels)
        planes = (
            kept[:, side : side + self.height, side : side + self.width].transpose(0, 3, 1, 2).astype(numpy.float32)
        )
        mean, std = (numpy.array(values, numpy.float32).reshape(-1, 1, 1) * 255 for values in (self.mean, self.std))
        return numpy.ascontiguousarray((planes - mean) / std)

    def save(self, folder: Path) -> None:
        """Write task.json, and preprocessor_config.json, by which transformers alone prepares images the same way."""
        super().save(folder)
        text = json.dumps(self.processor(), indent=2)
        (folder / "preprocessor_config.json").write_text(text + "\n", encoding="utf-8")

    def processor(self) -> dict[str, Any]:
        """The settings of an image processor of transformers."""
        size: dict[str, Any] = {"height": self.height, "width": self.width}
        facts: dict[str, Any] = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": size}
        if self.fit == "crop" and self.height == self.width:
            facts = {"image_processor_type": "CLIPImageProcessor", "do_resize": True, "do_center_crop": True}
            facts |= {"size": {"shortest_edge": self.height + self.margin}, "crop_size": size}
        facts |= {"resample": int(RESAMPLE[self.resample]), "do_rescale": True, "rescale_factor": 1 / 255}
        return facts | {"do_normalize": True, "image_mean": self.mean, "image_std": self.std}


def learn_pixels(options: ImageConfig, model: ModelConfig, margin: int = 0) -> dict[str, Any]:
    """The fields of an ImageState: those of the config, else those that pretrained weights were trained with."""
    known = _pretrained(model)
    size = options.size or known.get("size") or 224
    height, width = size if isinstance(size, list) else (size, size)
    channels = options.channels or known.get("channels") or 3

    def by_channel(given: list[float] | None, key: str) -> list[float]:
        found = given or known.get(key) or [0.5]
        if len(found) not in (1, channels):
            raise UserError(Problem(f"task.{key}", f"must have {channels} numbers, one a channel, got {len(found)}"))
        return list(found) * (channels if len(found) == 1 else 1)

    return {
        "height": height,
        "width": width,
        "channels": channels,
        "mean": by_channel(options.mean, "mean"),
        "std": by_channel(options.std, "std"),
        "resample": options.resample or known.get("resample") or "bilinear",
        "fit": options.fit,
        "margin": margin,
    }


def _pretrained(model: ModelConfig) -> dict[str, Any]:
    """What lies beside pretrained weights about the images that they were trained with; empty without weights."""
    if model.first_weights != "pretrained":
        return {}
    from llmft.models.model_files import processor_files  # imports transformers, which a service does without

    found: dict[str, Any] = {}
    for file in processor_files(model):
        with suppress(OSError, ValueError):  # transformers reports what is broken, when it loads the weights
            found |= json.loads(file.read_text(encoding="utf-8"))
    if isinstance(own := found.get("pretrained_cfg"), dict):  # as timm writes it; sizes are (channels, height, width)
        found |= {f"image_{key}": own[key] for key in ("mean", "std") if key in own}
        found |= {"size": own["input_size"][1:]} if "input_size" in own else {}
        found |= {"resample": RESAMPLE[own["interpolation"]]} if own.get("interpolation") in RESAMPLE else {}
    known: dict[str, Any] = {}
    size = found.get("crop_size") or found.get("size") or found.get("image_size")
    if isinstance(size, dict):
        size = [size.get("height", size.get("shortest_edge")), size.get("width", size.get("shortest_edge"))]
    if isinstance(size, int) or (isinstance(size, list) and all(isinstance(side, int) for side in size)):
        known["size"] = size
    if found.get("num_channels") in (1, 3):
        known["channels"] = found["num_channels"]
    known |= {key: found[f"image_{key}"] for key in ("mean", "std") if isinstance(found.get(f"image_{key}"), list)}
    names = {int(number): name for name, number in RESAMPLE.items()}
    return known | ({"resample": names[found["resample"]]} if found.get("resample") in names else {})


class Placement(NamedTuple):
    """Where the image lies in the kept pixels: x' = x * scale_x + left, y' = y * scale_y + top."""

    scale_x: float
    scale_y: float
    left: float
    top: float


def place(width: int, height: int, state: ImageState) -> Placement:
    """Where an image of this size, in pixels, lies in an image of `state`, margin included."""
    across, down = (state.width + state.margin) / width, (state.height + state.margin) / height
    if state.fit == "stretch":
        return Placement(across, down, 0.0, 0.0)
    if state.fit == "pad":
        scale = min(across, down)
        # Whole pixels, so that no column is mixed with the filling.
        return Placement(max(round(scale * width), 1) / width, max(round(scale * height), 1) / height, 0.0, 0.0)
    scale = max(across, down)
    left = (state.width + state.margin - scale * width) / 2
    return Placement(scale, scale, left, (state.height + state.margin - scale * height) / 2)


def resize(image: Image.Image, state: ImageState, resample: str, fill: int) -> Image.Image:
    """The image in the size of the kept pixels, as `place` says."""
    size = (state.width + state.margin, state.height + state.margin)
    at = place(image.width, image.height, state)
    if state.fit == "pad":
        inner = (round(at.scale_x * image.width), round(at.scale_y * image.height))
        canvas = Image.new(image.mode, size, fill if image.mode in ("L", "P") else (fill,) * len(image.getbands()))
        canvas.paste(image.resize(inner, RESAMPLE[resample]), (0, 0))
        return canvas
    left, top = -at.left / at.scale_x, -at.top / at.scale_y
    box = (max(left, 0.0), max(top, 0.0), min(image.width - left, image.width), min(image.height - top, image.height))
    return image.resize(size, RESAMPLE[resample], box=box)


def decode(cell: Cell, state: ImageState) -> tuple[bytes, tuple[int, int]]:
    """Pixels of an image, uint8 (height + margin, width + margin, channels) as bytes, and its own width and height.

    Raises:
        BadImage: if it cannot be decoded.
    """
    image = as_array(open_image(cell), state.channels)
    if image.size == (1, 1):
        raise BadImage(ONE_PIXEL)
    return resize(image, state, state.resample, state.fill).tobytes(), image.size


def encode_pixels(cells: list[Cell], ids: list[str], state: ImageState) -> tuple[list[bytes], list[tuple[int, int]]]:
    """The pixels of some rows, and the width and height that each image has by itself.

    Raises:
        UserError: naming each image that cannot be decoded.
    """

    def decoded(cell: Cell) -> tuple[bytes, tuple[int, int]] | str:
        try:
            return decode(cell, state)
        except BadImage as error:
            return str(error)

    # Pillow decodes and resizes without the lock of Python, so threads share the work.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:
        found = list(threads.map(decoded, cells))
    problems = [
        problem(row, cell, why) for cell, row, why in zip(cells, ids, found, strict=True) if isinstance(why, str)
    ]
    if problems:
        raise UserError(problems, "the data")
    pixels, sizes = zip(*(pair for pair in found if not isinstance(pair, str)), strict=True)
    return list(pixels), list(sizes)
