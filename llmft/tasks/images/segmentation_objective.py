"""What training minimizes for masks: cross entropy, soft Dice, or both, and from logits to the index of each pixel."""

from typing import Any, ClassVar

import numpy
import torch
from torch.nn import functional

from llmft.schema.augmentation import AugmentConfig
from llmft.schema.tasks import IGNORED_PIXEL
from llmft.tasks.images.image_objective import ImageObjective
from llmft.tasks.objective import Batch

SMOOTH = 1.0  # pixels: keeps the Dice of a label that a batch does not have at 1, where it would be 0 / 0


class SegmentationObjective(ImageObjective):
    """The loss that `task.loss` says. Logits that are smaller than the masks, as SegFormer's, are enlarged."""

    # A training step of the U-Net on a processor takes 1 / 1.25 of the time in float32, 1 / 1.37 in bfloat16.
    channels_last: ClassVar[bool] = True

    def collate(self, features: list[dict[str, Any]], augment: AugmentConfig | None = None) -> Batch:
        """`pixel_values` (B, channels, height, width), and `labels` (B, height, width) int64 of rows with a mask.

        Args:
            augment: in training; masks move with their images.
        """
        masks = None
        if "mask" in features[0]:
            side = self.task.state.height + self.task.state.margin
            found = torch.frombuffer(bytearray().join([row["mask"] for row in features]), dtype=torch.uint8)
            masks = found.view(len(features), side, -1)
        changed = self.augmented(features, augment, masks=masks)
        batch: Batch = {"pixel_values": self.normalize(changed.pixels)}
        return batch if changed.masks is None else batch | {"labels": changed.masks.long()}

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits = self._logits(model(pixel_values=batch["pixel_values"]), batch)
        kind = self.task.options.loss
        losses = [cross_entropy(logits, batch["labels"])] if "ce" in kind else []
        return sum([*losses, *([dice_loss(logits, batch["labels"])] if "dice" in kind else [])], logits.new_zeros(()))

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[list[numpy.ndarray], float | None]:
        """The index of each pixel, (height, width) uint8 a row, and the mean cross entropy if there are masks."""
        output = model(pixel_values=batch["pixel_values"])
        output.logits = self._logits(output, batch)  # enlarged once, for the loss and for `read`
        loss = cross_entropy(output.logits, batch["labels"]).item() if "labels" in batch else None
        return self.rows(self.found(output, batch), batch), loss

    def read(self, output: Any, batch: Batch) -> torch.Tensor:
        # Indices alone: the logits of a whole split would be four bytes for each label and pixel.
        return self._logits(output, batch).argmax(dim=1).to(torch.uint8)

    def _logits(self, output: Any, batch: Batch) -> torch.Tensor:
        """Logits (B, labels, height, width) in float32, as large as the pixels."""
        logits: torch.Tensor = output.logits.float()
        if logits.shape[-2:] != (size := batch["pixel_values"].shape[-2:]):
            logits = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return logits


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean over pixels with a label; 0 where no pixel has one, of which the mean of torch is NaN.

    Args:
        logits: (B, labels, height, width).
        labels: (B, height, width), IGNORED_PIXEL for pixels without a label.
    """
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED_PIXEL, reduction="sum")
    return total / (labels != IGNORED_PIXEL).sum().clamp(min=1)


def dice_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """1 minus the mean over labels of the soft Dice of the batch, 2 sum(p y) / (sum p + sum y); shapes as above.

    After Milletari et al. 2016 (https://arxiv.org/abs/1606.04797), with p and not its square in the denominator. It
    weighs each label alike, however few pixels it has.
    """
    counted = (labels != IGNORED_PIXEL).unsqueeze(1)
    shares = logits.softmax(dim=1) * counted
    wanted = functional.one_hot(labels.masked_fill(~counted.squeeze(1), 0), logits.shape[1]).movedim(-1, 1) * counted
    axes = (0, 2, 3)
    both = (shares * wanted).sum(axes)
    dice = (2 * both + SMOOTH) / (shares.sum(axes) + wanted.sum(axes) + SMOOTH)
    return 1 - dice.mean()
