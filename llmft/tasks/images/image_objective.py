"""What training minimizes for tasks on images: a batch of pixels at once, and its loss."""

from typing import Any

import numpy
import torch

from llmft.tasks.objective import Batch, Objective
from llmft.tasks.targets.losses import TargetObjective


class ImageObjective(Objective):
    """Makes `pixel_values` of the pixels of a batch; the other keys are stacked."""

    def collate(self, features: list[dict[str, Any]]) -> Batch:
        """`pixel_values` (B, channels, height, width), float32 and normalized, and the other keys as tensors."""
        batch: Batch = {"pixel_values": self.normalize(self.pixels(features))}
        others = [key for key in features[0] if key not in ("pixels", "draw")]
        return batch | {key: torch.tensor([feature[key] for feature in features]) for key in others}

    def pixels(self, features: list[dict[str, Any]]) -> numpy.ndarray:
        """The middle of the kept pixels, uint8 (B, height, width, channels)."""
        state = self.task.state
        kept = (state.height + state.margin, state.width + state.margin, state.channels)
        # One copy for the whole batch: a tensor a row takes ten times as long for small images.
        found = numpy.frombuffer(bytearray().join([feature["pixels"] for feature in features]), numpy.uint8)
        found = found.reshape(len(features), *kept)
        edge = state.margin // 2
        return found[:, edge : edge + state.height, edge : edge + state.width]

    def normalize(self, pixels: numpy.ndarray) -> torch.Tensor:
        """(pixel / 255 - mean) / std, float32 (B, channels, height, width)."""
        state = self.task.state
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (state.mean, state.std))
        found = torch.from_numpy(numpy.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float()
        return found.sub_(255 * mean).div_(255 * std)


class ImageTargetObjective(ImageObjective, TargetObjective):
    """The loss of a label, several labels, or a number for an image."""
