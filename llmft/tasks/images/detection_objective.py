"""What training minimizes for boxes: the loss of the model over boxes as it takes them, as shares of the image."""

import json
from typing import Any

import numpy
import torch

from llmft.schema.augmentation import AugmentConfig
from llmft.schema.tasks import IGNORED
from llmft.tasks.images.image_objective import ImageObjective
from llmft.tasks.objective import Batch

LIMIT = 100  # boxes an image, as in COCO


class DetectionObjective(ImageObjective):
    """For models of AutoModelForObjectDetection: `labels` in, `logits` (B, Q, C) and `pred_boxes` (B, Q, 4) out."""

    mean_over = "boxes"
    own_keys = ("boxes",)

    def collate(self, features: list[dict[str, Any]], augment: AugmentConfig | None = None) -> Batch:
        """`pixel_values`, and of rows with boxes `boxes` (B, n, 4) and `labels` (B, n), see `padded`.

        Args:
            augment: in training; boxes move with their image, and those that are cut off are left out.
        """
        # (n, 5); the shape also for n = 0, where an array of no boxes would have no columns.
        given = [numpy.array(json.loads(row["boxes"]), float).reshape(-1, 5) for row in features if "boxes" in row]
        found = self.augmented(features, augment, [boxes[:, :4] for boxes in given] or None)
        batch: Batch = {"pixel_values": self.normalize(found.pixels)}
        if found.boxes is None or found.kept is None:
            return batch
        classes = [boxes[kept, 4] for boxes, kept in zip(given, found.kept, strict=True)]
        return batch | padded(found.boxes, classes, (found.pixels.shape[2], found.pixels.shape[1]))

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The model's own loss."""
        loss: torch.Tensor = model(pixel_values=batch["pixel_values"], labels=targets(batch)).loss
        return loss

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[Any, float | None]:
        """For each image (n, 6): left, top, right, bottom as shares of the image, score, class; best first.

        Of a model that has a class more, for nothing, a query gives its best class (DETR); of one with a score for each
        class, all classes of all queries compete (Deformable DETR and later).
        """
        given = {"labels": targets(batch)} if "labels" in batch else {}
        output = model(pixel_values=batch["pixel_values"], **given)
        return self.rows(self.found(output, batch), batch), None if output.loss is None else output.loss.item()

    def read(self, output: Any, batch: Batch) -> torch.Tensor:
        return best_boxes(output.logits.float(), output.pred_boxes.float(), len(self.task.state.labels))


def targets(batch: Batch) -> list[dict[str, torch.Tensor]]:
    """The labels of a batch as models take them: `class_labels` (n,) and `boxes` (n, 4) of each image."""
    found = []
    # Padding is removed here and not in `collate`: accelerate moves tensors to a device, and no lists of objects.
    for labels, boxes in zip(batch["labels"], batch["boxes"], strict=True):
        there = labels != IGNORED
        found.append({"class_labels": labels[there], "boxes": boxes[there]})
    return found


def best_boxes(logits: torch.Tensor, boxes: torch.Tensor, labels: int) -> torch.Tensor:
    """The LIMIT boxes of each image with the highest scores, (B, n, 6) as `predict` gives them.

    Args:
        logits: (B, Q, labels), or (B, Q, labels + 1) with one for nothing.
        boxes: (B, Q, 4), x and y of the middle, width, height, as shares.
    """
    if logits.shape[-1] == labels + 1:
        # The last class is `nothing`; it takes part in the softmax and never wins.
        scores, numbers = logits.softmax(-1)[..., :-1].max(-1)
        scores, order = scores.topk(min(LIMIT, scores.shape[1]))
        numbers = numbers.gather(1, order)
    else:
        # A query may give two boxes of different classes, as in the models' own post-processing.
        flat = logits[..., :labels].sigmoid().flatten(1)
        scores, order = flat.topk(min(LIMIT, flat.shape[1]))
        order, numbers = order // labels, order % labels
    chosen = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    middle, half = chosen[..., :2], chosen[..., 2:] / 2
    return torch.cat([middle - half, middle + half, scores[..., None], numbers[..., None].to(scores)], -1)


def padded(boxes: list[numpy.ndarray], classes: list[numpy.ndarray], size: tuple[int, int]) -> Batch:
    """The boxes of a batch as tensors: `boxes` (B, n, 4) as shares, x and y of the middle, and `labels` (B, n).

    Args:
        boxes: by image (n, 4): x, y, width, height in pixels.
        classes: by image (n,).
        size: width and height of the image.
    """
    # At least one image: a batch without any boxes has n = 0, and every model takes that as background alone.
    most = max(map(len, boxes))
    shares = numpy.zeros((len(boxes), most, 4), numpy.float32)
    labels = numpy.full((len(boxes), most), IGNORED, numpy.int64)
    for row, (mine, numbers) in enumerate(zip(boxes, classes, strict=True)):
        shares[row, : len(mine), :2] = (mine[:, :2] + mine[:, 2:] / 2) / size
        shares[row, : len(mine), 2:] = mine[:, 2:] / size
        labels[row, : len(mine)] = numbers
    return {"boxes": torch.from_numpy(shares), "labels": torch.from_numpy(labels)}
