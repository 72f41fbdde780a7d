"""A U-Net for masks: a small network that finds regions without pretrained weights (Ronneberger et al. 2015).

Unlike in the paper, convolutions are padded, so that a mask is as large as its image, and each is followed by batch
normalization (https://arxiv.org/abs/1505.04597).
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SemanticSegmenterOutput

from llmft.schema.tasks import IGNORED_PIXEL


class UNetConfig(PreTrainedConfig):
    """Sizes of a U-Net.

    Args:
        hidden_sizes: channels of each level, from the full size of the image down; each level halves its sides.
        num_channels: channels of the image, 3 or 1.
    """

    model_type = "unet"

    def __init__(self, hidden_sizes: list[int] | None = None, num_channels: int = 3, **kwargs: Any) -> None:
        self.hidden_sizes = hidden_sizes or [16, 32, 64, 128, 256]
        self.num_channels = num_channels
        super().__init__(**kwargs)


def block(channels: int, width: int) -> nn.Sequential:
    """Two convolutions of 3 by 3, each with batch normalization and ReLU: (B, channels, H, W) to (B, width, H, W)."""
    parts: list[nn.Module] = []
    for before in (channels, width):
        # The normalization subtracts the mean, and with it any bias.
        parts += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


class Encoder(nn.Module):
    """The way down: a block a level, and half the sides between two."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block(*pair) for pair in pairwise([config.num_channels, *config.hidden_sizes]))

    def forward(self, pixel_values: torch.Tensor) -> BaseModelOutput:
        """The features of the lowest level, and `hidden_states`, those of all levels from the top."""
        found = [self.blocks[0](pixel_values)]
        for part in self.blocks[1:]:
            found.append(part(nn.functional.max_pool2d(found[-1], 2)))
        return BaseModelOutput(last_hidden_state=found[-1], hidden_states=tuple(found))


class Decoder(nn.Module):
    """The way up: twice the sides, joined with the encoder's features of that level, and a block."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        widths = list(reversed(config.hidden_sizes))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(lower, upper, 2, stride=2) for lower, upper in pairwise(widths))
        self.blocks = nn.ModuleList(block(2 * width, width) for width in widths[1:])

    def forward(self, levels: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The features (B, hidden_sizes[0], H, W) of the encoder's levels, from the top."""
        found = levels[-1]
        for up, part, level in zip(self.ups, self.blocks, reversed(levels[:-1]), strict=True):
            found = part(torch.cat([level, up(found)], dim=1))
        return found


class UNetForSemanticSegmentation(PreTrainedModel):
    """A U-Net with a class for each pixel. With the default sizes it has 1.9 million weights."""

    config_class = UNetConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.classifier = nn.Conv2d(config.hidden_sizes[0], config.num_labels, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """He et al. 2015 for convolutions before a ReLU; gains of 1 and biases of 0."""
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> SemanticSegmenterOutput:
        """Logits and loss.

        Args:
            pixel_values: (B, num_channels, H, W), normalized. Sides that cannot be halved often enough are padded.
            labels: (B, H, W) long, IGNORED_PIXEL where a pixel has none.

        Returns:
            logits (B, num_labels, H, W), and with `labels` the mean cross entropy over pixels that have one.
        """
        height, width = pixel_values.shape[-2:]
        step = 2 ** (len(self.config.hidden_sizes) - 1)
        right, bottom = -width % step, -height % step
        if right or bottom:
            pixel_values = nn.functional.pad(pixel_values, (0, right, 0, bottom), mode="replicate")
        levels = self.encoder(pixel_values).hidden_states
        logits = self.classifier(self.decoder(levels))[..., :height, :width]
        loss = None
        if labels is not None:
            total = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED_PIXEL, reduction="sum")
            loss = total / (labels != IGNORED_PIXEL).sum().clamp(min=1)  # the mean of torch over no pixel is NaN
        return SemanticSegmenterOutput(loss=loss, logits=logits)
