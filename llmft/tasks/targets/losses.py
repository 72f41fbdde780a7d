"""What training minimizes for a column `label`: losses of its problems, as means over the rows of a batch.

Class weights multiply the loss of a row. Unlike torch's `weight`, the sum is divided by the number of rows, not by
their weights: gradient accumulation and several processes then give the step of one large batch.
"""

import torch
from torch.nn import functional

from llmft.tasks.objective import Batch, Objective
from llmft.tasks.targets.config import TargetConfig
from llmft.tasks.targets.multi_label import MultiLabel
from llmft.tasks.targets.single_label import SingleLabel
from llmft.tasks.targets.target import Target

DELTA = 1.0  # huber: the error at which the square becomes a line, in standard deviations of the training rows


class TargetObjective(Objective):
    """The loss that `task.loss`, `task.class_weights`, and `task.label_smoothing` say."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return target_loss(self.task.state.target, model(**inputs).logits.float(), batch["labels"], self.task.options)


def target_loss(target: Target, logits: torch.Tensor, labels: torch.Tensor, options: TargetConfig) -> torch.Tensor:
    """The mean loss of a batch.

    Args:
        logits: (B, outputs).
        labels: (B,) or (B, outputs), what `target.encode` made.
    """
    if isinstance(target, SingleLabel):
        if options.loss == "focal":
            return focal(logits, labels, target.weights, options.focal_gamma)
        return cross_entropy(logits, labels, target.weights, options.label_smoothing)
    if isinstance(target, MultiLabel):
        if options.loss == "focal":
            return binary_focal(logits, labels, target.weights, options.focal_gamma)
        return binary_cross_entropy(logits, labels, target.weights, options.label_smoothing)
    return distance(logits.squeeze(-1), labels, options.loss)


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: list[float] | None, smoothing: float = 0.0
) -> torch.Tensor:
    """w_y * -sum_c q_c log p_c with q = (1 - smoothing) onehot(y) + smoothing / C.

    Args:
        logits: (B, C).
        labels: (B,), class indices.
        weights: (C,).
    """
    rows = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    return _weighed(rows, labels, weights).mean()


def focal(logits: torch.Tensor, labels: torch.Tensor, weights: list[float] | None, gamma: float) -> torch.Tensor:
    """w_y * -(1 - p_y)^gamma log p_y (Lin et al. 2017); shapes as above."""
    rows = functional.cross_entropy(logits, labels, reduction="none")
    return _weighed((1 - torch.exp(-rows)) ** gamma * rows, labels, weights).mean()


def binary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: list[float] | None, smoothing: float = 0.0
) -> torch.Tensor:
    """The mean over labels of -w_c q_c log p_c - (1 - q_c) log(1 - p_c) with q = (1 - smoothing) y + smoothing / 2.

    Args:
        logits: (B, C).
        labels: (B, C), 1 where a row has the label, else 0.
        weights: (C,).
    """
    positive = None if weights is None else logits.new_tensor(weights)
    targets = labels * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive)


def binary_focal(logits: torch.Tensor, labels: torch.Tensor, weights: list[float] | None, gamma: float) -> torch.Tensor:
    """The mean over cells of -w (1 - p)^gamma log p; p is the score of the right answer, and w is 1 if that is `no`."""
    cells = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    cells = (1 - torch.exp(-cells)) ** gamma * cells
    if weights is not None:
        cells = cells * torch.where(labels > 0, logits.new_tensor(weights), 1.0)
    return cells.mean()


def distance(outputs: torch.Tensor, labels: torch.Tensor, kind: str | None) -> torch.Tensor:
    """(y - f)^2, |y - f| for `mae`, or for `huber` half the square up to DELTA and a line beyond it; both (B,)."""
    if kind == "mae":
        return functional.l1_loss(outputs, labels)
    if kind == "huber":
        return functional.huber_loss(outputs, labels, delta=DELTA)
    return functional.mse_loss(outputs, labels)


def _weighed(rows: torch.Tensor, labels: torch.Tensor, weights: list[float] | None) -> torch.Tensor:
    return rows if weights is None else rows * rows.new_tensor(weights)[labels]
