"""The sections of the tasks on images."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llmft.schema.tasks import TaskConfig
from llmft.tasks.targets.config import TargetConfig

Side = Annotated[int, Field(ge=8, le=4096)]
Channel = Annotated[list[float], Field(min_length=1, max_length=3)]


class ImageConfig(TaskConfig):
    """What the tasks on images share: how an image becomes pixels of one size."""

    tiny: ClassVar[dict[str, Any]] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "patch_size": 8,
    }
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {
        "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 32], "depths": [1, 1, 1], "layer_type": "basic"}
    }
    small: ClassVar[dict[str, Any]] = {"size": 32}
    length: ClassVar[str] = "size"
    images: ClassVar[bool] = True
    streams: ClassVar[bool] = False
    prefixes: ClassVar[bool] = False
    files: ClassVar[str] = "dataset=images dataset.test=YOUR_FOLDER"

    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    """Height and width of what the model sees, in pixels: a number, or `[height, width]`. Unset: what pretrained
    weights were trained with, else 224."""

    fit: Literal["crop", "stretch", "pad"] = "crop"
    """How an image of another shape becomes that size: `crop` scales it so that it fills the size and cuts off what
    stands out at two sides, `stretch` changes its proportions, `pad` scales it to fit inside and fills the rest."""

    channels: Literal[1, 3] | None = None
    """3: red, green, and blue; 1: gray. Unset: what the pretrained model reads, else 3."""

    mean: Channel | None = None
    """What is subtracted from each channel, on the scale from 0 to 1. Unset: that of the pretrained weights, else
    0.5."""

    std: Channel | None = None
    """What each channel is divided by. Unset: that of the pretrained weights, else 0.5."""

    resample: Literal["nearest", "bilinear", "bicubic", "lanczos", "box"] | None = None
    """How pixels are interpolated. Unset: as for the pretrained weights, else `bilinear`."""


class ImageClassification(TargetConfig, ImageConfig):
    """A label, several labels, or a number for an image."""

    name: Literal["image_classification"] = "image_classification"
    """A label, several labels, or a number for an image."""
