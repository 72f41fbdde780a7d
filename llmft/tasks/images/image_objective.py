"""What training minimizes for tasks on images: a batch of pixels at once, augmented in training, and its loss."""

from typing import Any, ClassVar

import numpy
import torch

from llmft.schema.augmentation import AugmentConfig
from llmft.tasks.images.augment import Augmented, augment, mix
from llmft.tasks.objective import Batch, Objective
from llmft.tasks.targets.losses import TargetObjective, target_loss

OF_PIXELS = ("pixels", "draw")


class ImageObjective(Objective):
    """Makes `pixel_values` of the pixels of a batch; the other keys are stacked."""

    augments = True
    of_encoder: ClassVar[tuple[str, ...]] = ("pixels",)
    channels_last: ClassVar[bool] = False
    """Whether the channels of a pixel lie side by side in memory, as they come. The values are the same."""

    def collate(self, features: list[dict[str, Any]], augment: AugmentConfig | None = None) -> Batch:
        """`pixel_values` (B, channels, height, width), float32 and normalized, and the other keys as tensors.

        Args:
            augment: in training; features then have a `draw`.
        """
        batch: Batch = {}
        if "pixels" in features[0]:
            batch["pixel_values"] = self.normalize(self.augmented(features, augment).pixels)
        else:  # the outputs of the encoder are kept; this says how many rows there are, and takes no memory
            state = self.task.state
            batch["pixel_values"] = torch.zeros(1).expand(len(features), state.channels, state.height, state.width)
        others = [key for key in features[0] if key not in OF_PIXELS]
        return batch | {key: torch.tensor([feature[key] for feature in features]) for key in others}

    def augmented(
        self,
        features: list[dict[str, Any]],
        options: AugmentConfig | None,
        boxes: list[numpy.ndarray] | None = None,
        masks: torch.Tensor | None = None,
    ) -> Augmented:
        """The pixels of a batch, with boxes and masks, as `augment` gives them; without draws, the middle."""
        draws = numpy.array([feature["draw"] for feature in features]) if "draw" in features[0] else None
        state = self.task.state
        return augment(self.pixels(features), (state.height, state.width), draws, options, boxes, masks)

    def pixels(self, features: list[dict[str, Any]]) -> torch.Tensor:
        """The kept pixels, margin included, uint8 (B, height, width, channels)."""
        state = self.task.state
        # One copy for the whole batch: a tensor a row takes ten times as long for small images.
        found = torch.frombuffer(bytearray().join([feature["pixels"] for feature in features]), dtype=torch.uint8)
        return found.view(len(features), state.height + state.margin, state.width + state.margin, state.channels)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """(pixel / 255 - mean) / std: from uint8 (B, height, width, channels) to float32 (B, channels, ...)."""
        state = self.task.state
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (state.mean, state.std))
        planes = pixels.permute(0, 3, 1, 2)
        if not self.channels_last:
            planes = planes.contiguous()  # as bytes, a quarter of what the floats would be
        return planes.float().sub_(255 * mean).div_(255 * std)


class ImageTargetObjective(ImageObjective, TargetObjective):
    """The loss of a label, several labels, or a number for an image."""

    own_keys: ClassVar[tuple[str, ...]] = ("own_share",)
    # A training step on a processor takes 1 / 1.37 of the time for ResNet-8, and 1 / 1.46 for EfficientNet-lite0.
    channels_last: ClassVar[bool] = True

    def collate(self, features: list[dict[str, Any]], augment: AugmentConfig | None = None) -> Batch:
        """As above; where images are mixed, `own_share` (B,) says how much of its label each has, see `mix`."""
        batch = super().collate(features, augment)
        if augment is not None and (augment.mixup or augment.cutmix) and "draw" in features[0]:
            draws = numpy.array([feature["draw"] for feature in features])
            batch["pixel_values"], own = mix(batch["pixel_values"], draws, augment)
            batch["own_share"] = torch.full((len(features),), own)
        return batch

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The mean loss; of mixed images, of both labels by their shares."""
        if "own_share" not in batch:
            return super().loss(model, batch)
        batch = dict(batch)
        own, labels = batch.pop("own_share")[0], batch.pop("labels")
        logits, target = model(**batch).logits.float(), self.task.state.target
        own_loss, other_loss = (
            target_loss(target, logits, found, self.task.options) for found in (labels, labels.roll(-1, 0))
        )
        return own * own_loss + (1 - own) * other_loss
