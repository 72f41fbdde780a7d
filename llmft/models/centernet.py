"""A dense detector: each cell of a map says of which class an object has its middle there, and how far its sides are.

After CenterNet (Zhou et al. 2019, https://arxiv.org/abs/1904.07850), with the distances to the sides and their loss of
TTFNet (Liu et al. 2020, https://arxiv.org/abs/1909.00700): cells near a middle learn the box too, so that few images
are enough. It needs no queries and no matching, and all of its operations export.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.backbone_utils import load_backbone
from transformers.utils import ModelOutput

PRIOR = 0.1  # the score of every cell before training, which keeps the first losses small (CenterNet, section 5.1)
SPREAD = 0.54 / 6  # standard deviation of a middle, as a share of the sides of its box (TTFNet, section 3.2)
PEAKS = 100  # boxes an image, as in COCO
SIZES = 5.0  # the weight of the loss of boxes (TTFNet, section 3.4)
ABSENT = -20.0  # the logit of the classes that a peak is not of: a score of 2e-9


class CenterNetConfig(PreTrainedConfig):
    """The sizes of the detector.

    Args:
        backbone_config: that of a backbone of transformers, or of `timm_backbone`; its maps are added from the smallest
            to the largest, whose stride is that of the answers. 4 is usual.
        width: channels of the maps of the neck and the heads.
    """

    model_type = "centernet"

    def __init__(self, backbone_config: Any = None, width: int = 64, **kwargs: Any) -> None:
        if backbone_config is None:
            backbone_config = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32, 64, 128]}
            backbone_config |= {"depths": [1, 1, 1, 1], "layer_type": "basic", "out_indices": [1, 2, 3, 4]}
        if isinstance(backbone_config, dict):
            given = dict(backbone_config)
            backbone_config = AutoConfig.for_model(given.pop("model_type"), **given)
        self.backbone_config = backbone_config
        self.width = width
        super().__init__(**kwargs)


@dataclass
class CenterNetOutput(ModelOutput):
    """What the detector says of a batch."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    """(B, PEAKS, num_labels): of a peak, the logit of its class, and ABSENT for the others."""
    pred_boxes: torch.Tensor | None = None
    """(B, PEAKS, 4): x and y of the middle, width, height, as shares of the image."""


class CenterNetForObjectDetection(PreTrainedModel):
    """A backbone, a neck that joins its maps, and two heads."""

    config_class = CenterNetConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"

    def __init__(self, config: CenterNetConfig) -> None:
        super().__init__(config)
        self.backbone = load_backbone(config)
        width = config.width
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in self.backbone.channels)
        self.joined = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.classes = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, config.num_labels, 1)
        )
        self.sides = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 4, 1))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As torch initializes layers, except for the first scores and sides."""
        # Not for `module is self`: transformers skips modules of other packages that have no weights of their own.
        first = {id(self.classes[-1]): math.log(PRIOR / (1 - PRIOR)), id(self.sides[-1]): 1.0}
        if isinstance(module, nn.Conv2d) and module.bias is not None and id(module) in first:
            nn.init.constant_(module.bias, first[id(module)])

    def forward(
        self, pixel_values: torch.Tensor, labels: list[dict[str, torch.Tensor]] | None = None
    ) -> CenterNetOutput:
        """Boxes, and with `labels` their loss.

        Args:
            pixel_values: (B, C, H, W), sides that are multiples of the largest stride.
            labels: for each image `class_labels` (n,) and `boxes` (n, 4), x and y of the middle, width, height as
                shares of the image.
        """
        maps = self.backbone(pixel_values).feature_maps
        joined = self.lateral[-1](maps[-1])
        for lateral, features in zip(reversed(self.lateral[:-1]), reversed(maps[:-1]), strict=True):
            joined = lateral(features) + functional.interpolate(joined, size=features.shape[-2:], mode="nearest")
        joined = self.joined(joined)
        heat, sides = self.classes(joined), functional.softplus(self.sides(joined))
        corners = _corners(sides)
        loss = None if labels is None else _loss(heat, corners, labels)
        if self.training:  # the peaks are for answers alone
            return CenterNetOutput(loss=loss)
        logits, boxes = _peaks(heat, corners)
        return CenterNetOutput(loss=loss, logits=logits, pred_boxes=boxes)


def _corners(sides: torch.Tensor) -> torch.Tensor:
    """Left, top, right, and bottom (B, 4, h, w) of boxes in cells, by the distances (B, 4, h, w) to their sides."""
    height, width = sides.shape[-2:]
    across = torch.arange(width, device=sides.device) + 0.5
    down = (torch.arange(height, device=sides.device) + 0.5)[:, None]
    left, top, right, bottom = sides.unbind(1)
    unit = max(height, width) / 16  # so that softplus(1) is a box of a sixth of the image
    return torch.stack([across - unit * left, down - unit * top, across + unit * right, down + unit * bottom], 1)


def _peaks(heat: torch.Tensor, corners: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cells with the highest logits among their neighbors: logits (B, n, classes) and boxes (B, n, 4)."""
    classes, (height, width) = heat.shape[1], heat.shape[-2:]
    highest = functional.max_pool2d(heat, 3, stride=1, padding=1)
    flat = torch.where(heat == highest, heat, torch.full_like(heat, ABSENT)).flatten(1)
    values, order = flat.topk(min(PEAKS, flat.shape[1]))
    numbers, cells = order // (height * width), order % (height * width)
    chosen = functional.one_hot(numbers, classes).bool()
    logits = torch.where(chosen, values[..., None], torch.full_like(values, ABSENT)[..., None])
    found = corners.flatten(2).gather(2, cells[:, None].expand(-1, 4, -1)).transpose(1, 2)
    low, high = found[..., :2], found[..., 2:]
    size = torch.tensor([width, height], device=heat.device)
    return logits, torch.cat([(low + high) / 2 / size, (high - low) / size], -1)


def _loss(heat: torch.Tensor, corners: torch.Tensor, labels: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """The focal loss of middles (CenterNet, equation 1) an object, and 1 - GIoU of the boxes near them."""
    wanted = [_wanted(each, heat.shape[1:]) for each in labels]
    middles, boxes, weights = (torch.stack(part) for part in zip(*wanted, strict=True))
    score = heat.sigmoid().clamp(1e-4, 1 - 1e-4)
    right = middles == 1
    focal = torch.where(right, (1 - score) ** 2 * score.log(), (1 - middles) ** 4 * score**2 * (1 - score).log()).sum()
    objects = sum(len(each["class_labels"]) for each in labels)
    overlap = 1 - _giou(corners, boxes)
    return -focal / max(objects, 1) + SIZES * (overlap * weights).sum() / weights.sum().clamp(min=1e-6)


def _wanted(labels: dict[str, torch.Tensor], shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the maps of one image should be: middles (C, h, w), boxes (4, h, w) in cells, their weights (h, w).

    A cell near several middles learns the smallest of the boxes.
    """
    classes, height, width = shape
    boxes, kinds = labels["boxes"], labels["class_labels"]
    size = torch.tensor([width, height], device=boxes.device)
    middle, sides = boxes[:, :2] * size, boxes[:, 2:] * size
    # The cell of the middle; its own center is the peak, so that exactly one cell of each object has the value 1.
    cell = torch.minimum(middle.floor().clamp(min=0), size - 1.0)
    spread = (SPREAD * sides).clamp(min=0.3)
    across = torch.arange(width, device=boxes.device)[None] - cell[:, :1]
    down = torch.arange(height, device=boxes.device)[None] - cell[:, 1:]
    bell = torch.exp(
        -(across**2 / (2 * spread[:, :1] ** 2))[:, None, :] - (down**2 / (2 * spread[:, 1:] ** 2))[:, :, None]
    )  # (n, h, w)
    middles = torch.zeros(classes, height, width, device=boxes.device)
    wanted = torch.zeros(4, height, width, device=boxes.device)
    weights = torch.zeros(height, width, device=boxes.device)
    for number in sides.prod(dim=1).argsort(descending=True).tolist():
        mine = bell[number]
        kind = int(kinds[number])
        middles[kind] = torch.maximum(middles[kind], mine)
        near = mine > 0.1
        low, high = middle[number] - sides[number] / 2, middle[number] + sides[number] / 2
        wanted[:, near] = torch.cat([low, high])[:, None]
        # By the logarithm of the area, as in TTFNet (equation 7): a large box has many cells, and is one object.
        weights[near] = (mine[near] / mine[near].sum()) * sides[number].prod().add(1).log()
    return middles, wanted, weights


def _giou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Generalized intersection over union (Rezatofighi et al. 2019), (B, h, w), of corners (B, 4, h, w)."""
    low, high = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = [(each[:, 2:] - each[:, :2]).clamp(min=0).prod(dim=1) for each in (boxes, others)]
    union = areas[0] + areas[1] - shared
    around = (torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])).prod(dim=1)
    return shared / (union + 1e-6) - (around - union) / (around + 1e-6)
