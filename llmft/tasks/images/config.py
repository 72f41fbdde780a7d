"""The sections of the tasks on images."""

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from llmft.schema.metric import METRICS_OF
from llmft.schema.tasks import IGNORED_PIXEL, TaskConfig
from llmft.tasks.targets.config import TargetConfig

Side = Annotated[int, Field(ge=8, le=4096)]
Channel = Annotated[list[float], Field(min_length=1, max_length=3)]
Color = Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]


TINY_STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
TINY_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "patch_size": 8,
}
TINY_BEIT = TINY_VIT | {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]}
TINY_SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 2}
TINY_DINO = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2, "patch_size": 8}


class ImageConfig(TaskConfig):
    """What the tasks on images share: how an image becomes pixels of one size."""

    tiny_sizes: ClassVar[dict[str, int]] = {
        **dict.fromkeys(("hidden_size", "hidden_sizes", "embedding_size", "embed_dim", "d_model"), 32),
        **dict.fromkeys(("neck_hidden_sizes", "fusion_hidden_size", "projection_dim"), 32),
        **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim"), 64),
        **dict.fromkeys(("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads"), 2),
        **dict.fromkeys(("num_hidden_layers", "encoder_layers", "decoder_layers", "num_heads"), 2),
        **dict.fromkeys(("depths", "num_block_repeats"), 1),
        "num_queries": 10,
    }
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {
        "vit": TINY_VIT,
        # Groups of 32 channels are normalized together, and a block has a quarter of its channels inside.
        "bit": {"embedding_size": 32, "hidden_sizes": [128, 128, 128, 128], "depths": [1, 1, 1, 1]},
        "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 32], "depths": [1, 1, 1], "layer_type": "basic"},
        "swin": TINY_SWIN,
        "swinv2": TINY_SWIN,
        **dict.fromkeys(("convnext", "convnextv2", "poolformer"), TINY_STAGES),
        **dict.fromkeys(("dinov2", "dinov2_with_registers"), TINY_DINO),
        "regnet": TINY_STAGES | {"embedding_size": 8, "groups_width": 8},
        "mobilenet_v1": {"depth_multiplier": 0.25},
        "mobilenet_v2": {"depth_multiplier": 0.25},
        "timm_wrapper": {"architecture": "test_efficientnet"},
        "image_mlp": {"hidden_sizes": [16]},
        "image_cnn": {"hidden_sizes": [4, 8], "feature_size": 16},
        "small_resnet": {"hidden_sizes": [8, 16, 32]},
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

    margin: int = Field(default=0, ge=0, le=1024)
    """How many pixels larger than `size` an image is kept. The model sees its middle; in training an `augment` that
    cuts out parts takes any. 32 for a size of 224 is the usual enlargement by 1.14."""

    top_k: int = Field(default=5, ge=2)
    """With more labels than this, `top_k_accuracy` is the share of rows whose label is among so many of the highest
    scores."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of this problem; for one label of several, those of images."""
        return tuple(METRICS_OF["image_classification" if self.problem == "single_label" else self.problem])


class SemanticSegmentation(ImageConfig):
    """Semantic segmentation: the label of each pixel of an image."""

    # With all their layers, some of which the heads name by number.
    tiny_sizes: ClassVar[dict[str, int]] = {
        name: size for name, size in ImageConfig.tiny_sizes.items() if name not in ("num_hidden_layers", "depths")
    }
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {
        **dict.fromkeys(("beit", "data2vec-vision"), TINY_BEIT),
        "unet": {"hidden_sizes": [8, 16, 32]},
        "segformer": {
            "hidden_sizes": [8, 16, 16, 32],
            "num_attention_heads": [1, 1, 2, 2],
            "depths": [1, 1, 1, 1],
            "decoder_hidden_size": 16,
        },
    }
    of_data: ClassVar[tuple[str, ...]] = ("labels", "values", "colors")
    files: ClassVar[str] = "dataset=masks dataset.test=YOUR_FOLDER"
    answered: ClassVar[tuple[str, ...]] = ("answer", "mask", "drawing", "error")

    name: Literal["semantic_segmentation"] = "semantic_segmentation"
    """Semantic segmentation: the label of each pixel of an image."""

    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    """Height and width of what the model sees, in pixels: a number, or `[height, width]`. Unset: what pretrained
    weights were trained with, else the size of the training images if all have one of at most 512 pixels, else 224."""

    # Not `crop`: what it cuts off would have no answer.
    fit: Literal["stretch", "pad"] = "stretch"
    """How an image of another shape becomes that size: `stretch` changes its proportions, `pad` scales it to fit inside
    and fills the rest. Answers have the size of the image."""

    labels: list[str] | None = Field(default=None, min_length=2)
    """The name of each index in masks, from 0 on, such as `[background, road, car]`. Unset: the names that COCO files
    and tables of runs have, else the indices of the training masks."""

    values: list[Annotated[int, Field(ge=0, le=65535)]] | None = Field(default=None, min_length=2)
    """The value of each label in masks, for masks whose values are not 0, 1, 2, ..., such as `[0, 128, 255]`."""

    colors: list[Color] | None = Field(default=None, min_length=2)
    """The color of each label, for masks with RGB colors: `['#000000', '#804080']`."""

    ignore_index: Annotated[int, Field(ge=0, le=65535)] | None = IGNORED_PIXEL
    """The value of pixels without a label in masks. They are not trained on and not scored. `null`: there are none."""

    background: bool = True
    """Whether the first label is the background, which `iou` and `dice` leave out. `mean_iou` counts all labels."""

    loss: Literal["ce", "dice", "ce+dice"] = "ce"
    """The loss of training: cross entropy of each pixel; soft Dice, which weighs each label alike, however few pixels
    it has; or their sum. Evaluation always reports cross entropy, so that runs can be compared."""

    @property
    def metric(self) -> str:
        return "iou"

    @model_validator(mode="after")
    def _values_and_colors_are_of_labels(self) -> Self:
        for key, given in (("values", self.values), ("colors", self.colors)):
            if given and len(set(given)) < len(given):
                raise ValueError(f"{key} must list each one once, got {', '.join(map(str, given))}")
            if given and self.labels and len(given) != len(self.labels):
                raise ValueError(f"{key} must be one for each of {len(self.labels)} labels, got {len(given)}")
        if self.values and self.colors:
            raise ValueError("values and colors cannot both be set: masks have either")
        if self.labels and len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels must list each one once, got {', '.join(self.labels)}")
        return self


# The backbone of tiny detectors: maps at strides 8, 16, and 32.
TINY_BACKBONE = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}
TINY_BACKBONE |= {"layer_type": "basic", "out_indices": [2, 3, 4]}


TINY_DETECTOR: dict[str, Any] = {
    "backbone_config": TINY_BACKBONE,
    "encoder_in_channels": [24, 32, 48],
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 2,
    "d_model": 32,
    "decoder_in_channels": [32, 32, 32],
    "decoder_layers": 2,
    "decoder_ffn_dim": 64,
    "decoder_attention_heads": 2,
    "num_queries": 20,
    "num_denoising": 10,
}


class ObjectDetection(ImageConfig):
    """Object detection: boxes around objects in an image, each with a label and a score."""

    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {
        "centernet": {"backbone_config": TINY_BACKBONE | {"out_indices": [1, 2, 3]}, "width": 16},
        "rt_detr": TINY_DETECTOR,
        "rt_detr_v2": TINY_DETECTOR,
        "d_fine": TINY_DETECTOR,
        "detr": {
            "backbone_config": TINY_BACKBONE | {"out_indices": [3]},
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_ffn_dim": 64,
            "encoder_attention_heads": 2,
            "decoder_layers": 2,
            "decoder_ffn_dim": 64,
            "decoder_attention_heads": 2,
            "num_queries": 10,
        },
        "yolos": TINY_VIT | {"num_detection_tokens": 10},
    }
    small: ClassVar[dict[str, Any]] = {"size": 64}
    of_data: ClassVar[tuple[str, ...]] = ("labels",)
    decoding: ClassVar[tuple[str, ...]] = ("threshold",)
    files: ClassVar[str] = "dataset=coco dataset.test=YOUR.json"
    answered: ClassVar[tuple[str, ...]] = ("answer", "drawing", "error")

    name: Literal["object_detection"] = "object_detection"
    """Object detection: boxes around objects in an image, each with a label and a score."""

    fit: Literal["stretch", "pad"] = "stretch"
    """How an image of another shape becomes that size: `stretch` changes its proportions, `pad` scales it to fit inside
    and fills the rest."""

    labels: list[str] | None = Field(default=None, min_length=1)
    """All labels, such as `[cat, dog]`. Unset: those of the boxes of `train`, sorted."""

    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["f1"] = "f1"
    """The score from which a box is an answer. `f1`: the one with the highest F1 on the validation rows; without them,
    0.5. COCO's scores, such as mAP, are over all boxes."""

    invalid_boxes: Literal["refuse", "drop"] = "refuse"
    """What happens to boxes without area, or wholly outside their image: the run stops, or they are left out. Boxes
    that stand out of their image are cut at its border."""

    @property
    def metric(self) -> str:
        """The metric that selects the best checkpoint if `trainer.metric_for_best` is unset."""
        return "map"

    @property
    def headline(self) -> str:
        """The metric to show first."""
        return "map"

    @model_validator(mode="after")
    def _labels_are_told_apart(self) -> Self:
        if self.labels and (twice := [label for label, count in Counter(self.labels).items() if count > 1]):
            raise ValueError(f"labels must list each label once, got {', '.join(map(repr, twice))} twice")
        return self
