"""What was learned of the column `label`: from cells to numbers and back, answers and their metrics; without torch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy

from llmft.schema.column import Column
from llmft.schema.problem import Problem, plural
from llmft.tasks.targets.config import ProblemType, TargetConfig
from llmft.tasks.task import Answer

if TYPE_CHECKING:
    import torch
    from datasets import Dataset


@dataclass(frozen=True)
class Target(ABC):
    """One of the problems: single_label, multi_label, regression. Kept in task.json, by its fields."""

    problem: ClassVar[ProblemType]

    @classmethod
    @abstractmethod
    def column(cls, options: TargetConfig) -> Column:
        """How the cells of `label` are read."""

    @classmethod
    @abstractmethod
    def fit(cls, labels: list[Any], options: TargetConfig) -> Self:
        """Learn from the cells of the training rows.

        Raises:
            UserError: if they hold nothing that could be told apart.
        """

    @abstractmethod
    def model_kwargs(self) -> dict[str, Any]:
        """What the model's configuration must say."""

    @abstractmethod
    def check(self, rows: "Dataset", split: str) -> list[Problem]:
        """What the cells of a split hold that cannot be expressed."""

    @abstractmethod
    def encode(self, labels: list[Any]) -> list[Any]:
        """Cells as the model is to answer them."""

    def row_weights(self, labels: numpy.ndarray) -> numpy.ndarray | None:
        """How much each row counts by `task.class_weights`, float32 of the shape of `labels`. Default: 1."""
        return None

    def calibrate(self, logits: numpy.ndarray, labels: list[Any], options: TargetConfig) -> Self:
        """Learn from validation rows what is decided after training. Default: nothing.

        Args:
            logits: (rows, outputs), float64.
            labels: the cells of those rows.
        """
        return self

    def notes(self, labels: list[Any], options: TargetConfig) -> list[str]:
        """What is odd about the cells of the training rows, a line each. Default: nothing."""
        return []

    def describe_answers(self) -> str:
        """What is said of a row, in a few words."""
        names = list(map(str, self.model_kwargs().get("id2label", {}).values()))
        if not names:
            return "a number"
        how_many = "any of " if self.problem == "multi_label" else ""
        return f"{how_many}{plural(len(names), 'labels')}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"

    def label_thresholds(self) -> dict[str, float]:
        """The score from which on a label is given, where that is decided label by label. Default: none."""
        return {}

    def uncalibrated(self) -> Self:
        """The same without a temperature. Default: there is none."""
        return self

    @abstractmethod
    def decode(self, logits: numpy.ndarray) -> list[Answer]:
        """Answers for logits (rows, outputs) in float64."""

    @abstractmethod
    def export_outputs(self, logits: "torch.Tensor") -> "dict[str, torch.Tensor]":
        """What `decode` says of logits (B, outputs), in tensors for an exported program: `scores` or `answer`."""

    @abstractmethod
    def formula(self) -> str:
        """How logits become answers, in a sentence for who has the weights alone."""

    @abstractmethod
    def score(self, answers: list[Answer], labels: list[Any]) -> dict[str, Any]:
        """Scores of answers against cells."""
