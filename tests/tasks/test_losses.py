"""Each loss against torch, or against its formula written out."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from llmft.tasks.targets import losses
from llmft.tasks.targets.config import TargetConfig
from llmft.tasks.targets.multi_label import MultiLabel
from llmft.tasks.targets.regression import Regression
from llmft.tasks.targets.single_label import SingleLabel

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -0.3], [-2.0, 1.0, 3.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
CLASSES = torch.tensor([0, 2, 1, 1])
CELLS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], dtype=torch.float64)
WEIGHTS = [0.5, 2.0, 3.0]
P = torch.softmax(LOGITS, 1)
S = torch.sigmoid(LOGITS)


def by_hand(cell: Callable[[int, int], float]) -> float:
    """The mean over all cells of a table of rows and labels."""
    return sum(cell(row, label) for row in range(4) for label in range(3)) / 12


def binary(row: int, label: int, smoothing: float = 0.0, weight: float = 1.0) -> float:
    q, s = float(CELLS[row, label]) * (1 - smoothing) + smoothing / 2, float(S[row, label])
    return -weight * q * math.log(s) - (1 - q) * math.log(1 - s)


def focal_cell(row: int, label: int) -> float:
    yes, s = bool(CELLS[row, label]), float(S[row, label])
    p = s if yes else 1 - s
    return (WEIGHTS[label] if yes else 1.0) * -((1 - p) ** 2) * math.log(p)


SINGLE = SingleLabel(["a", "b", "c"])
WEIGHED = SingleLabel(["a", "b", "c"], WEIGHTS)
MULTI = MultiLabel(["a", "b", "c"], [0.5] * 3)
MULTI_WEIGHED = MultiLabel(["a", "b", "c"], [0.5] * 3, WEIGHTS)
CASES = {
    "cross entropy": (SINGLE, {}, functional.cross_entropy(LOGITS, CLASSES).item()),
    "smoothed": (SINGLE, {"label_smoothing": 0.2}, functional.cross_entropy(LOGITS, CLASSES, label_smoothing=0.2).item()),
    "weighed": (WEIGHED, {}, -sum(WEIGHTS[c] * math.log(P[i, c]) for i, c in enumerate(CLASSES.tolist())) / 4),
    "focal": (SINGLE, {"loss": "focal"}, -sum((1 - P[i, c]) ** 2 * math.log(P[i, c]) for i, c in enumerate(CLASSES.tolist())).item() / 4),
    "focal of gamma 0": (WEIGHED, {"loss": "focal", "focal_gamma": 0}, losses.cross_entropy(LOGITS, CLASSES, WEIGHTS).item()),
    "binary cross entropy": (MULTI, {}, by_hand(binary)),
    "binary, smoothed": (MULTI, {"label_smoothing": 0.2}, by_hand(lambda i, c: binary(i, c, 0.2))),
    "binary, weighed": (MULTI_WEIGHED, {}, by_hand(lambda i, c: binary(i, c, weight=WEIGHTS[c]))),
    "binary focal": (MULTI_WEIGHED, {"loss": "focal"}, by_hand(focal_cell)),
    "binary focal of gamma 0": (MULTI, {"loss": "focal", "focal_gamma": 0}, functional.binary_cross_entropy_with_logits(LOGITS, CELLS).item()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_loss_of_labels(name: str) -> None:
    target, options, expected = CASES[name]
    labels = CELLS if target.problem == "multi_label" else CLASSES
    found = losses.target_loss(target, LOGITS, labels, TargetConfig(problem=target.problem, **options))
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (None, (0.5**2 + 3**2 + 0) / 3),
        ("mse", (0.5**2 + 3**2 + 0) / 3),
        ("mae", (0.5 + 3 + 0) / 3),
        ("huber", (0.5**2 / 2 + (3 - 0.5) + 0) / 3),  # half the square up to 1, then a line
    ],
)
def test_a_loss_of_numbers(loss: str | None, expected: float) -> None:
    outputs, labels = torch.tensor([[1.5], [-2.0], [4.0]]), torch.tensor([1.0, 1.0, 4.0])
    found = losses.target_loss(Regression(0.0, 1.0), outputs, labels, TargetConfig(problem="regression", loss=loss))
    assert found.item() == pytest.approx(expected)
    alone = losses.target_loss(
        Regression(0.0, 1.0), outputs[:1], labels[:1], TargetConfig(problem="regression", loss=loss)
    )
    assert alone.item() == pytest.approx(0.125 if loss == "huber" else 0.5 if loss == "mae" else 0.25)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("target", [WEIGHED, MULTI_WEIGHED], ids=["single", "multi"])
def test_the_mean_of_two_batches_is_that_of_one(target: SingleLabel | MultiLabel, loss: str) -> None:
    """With class weights, too: so a step is the same in accumulated batches and in several processes."""
    labels = CELLS if target.problem == "multi_label" else CLASSES
    options = TargetConfig(problem=target.problem, loss=loss)
    whole = losses.target_loss(target, LOGITS, labels, options)
    parts = [losses.target_loss(target, LOGITS[half], labels[half], options) for half in (slice(0, 2), slice(2, 4))]
    assert whole.item() == pytest.approx(sum(part.item() for part in parts) / 2)
