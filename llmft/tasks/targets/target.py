"""What was learned of the column `label`: from cells to numbers and back, answers and their metrics; without torch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy

from llmft.data.source import Rows
from llmft.schema.column import Column
from llmft.schema.problem import Problem, plural
from llmft.tasks.targets.config import ProblemType, TargetConfig
from llmft.tasks.task import Answer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Target(ABC):
    """One of the problems: single_label, multi_label, regression. Its fields are saved in task.json."""

    problem: ClassVar[ProblemType]

    @classmethod
    @abstractmethod
    def column(cls, options: TargetConfig) -> Column:
        """The role `label`: how its cells are read."""

    @classmethod
    @abstractmethod
    def fit(cls, labels: list[Any], options: TargetConfig) -> Self:
        """Learn from the cells of the training rows.

        Raises:
            UserError: if they hold one label, or one number, only: there is nothing to predict.
        """

    @abstractmethod
    def model_kwargs(self) -> dict[str, Any]:
        """What the model's configuration must be: the number of labels, their names, and the problem type."""

    @abstractmethod
    def check(self, rows: Rows, split: str) -> list[Problem]:
        """Problems with the cells of a split, such as labels that training did not have."""

    @abstractmethod
    def encode(self, labels: list[Any]) -> list[Any]:
        """Cells as numbers: class indices, a 0 or 1 for each label, or standardized values."""

    def row_weights(self, labels: numpy.ndarray) -> numpy.ndarray | None:
        """How much each row counts by `task.class_weights`, float32 of the shape of `labels`. Default: 1."""
        return None

    def calibrate(self, logits: numpy.ndarray, labels: list[Any], options: TargetConfig) -> Self:
        """Learn a temperature and thresholds from validation rows, as `options` says. Default: nothing.

        Args:
            logits: (rows, outputs), float64.
            labels: the cells of those rows.
        """
        return self

    def notes(self, labels: list[Any], options: TargetConfig) -> list[str]:
        """What the user should know of the cells of the training rows, a line each. Default: nothing."""
        return []

    def describe_answers(self) -> str:
        """What the model answers, in a few words: `2 labels: bad, good`."""
        names = list(map(str, self.model_kwargs().get("id2label", {}).values()))
        if not names:
            return "a number"
        how_many = "any of " if self.problem == "multi_label" else ""
        return f"{how_many}{plural(len(names), 'labels')}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"

    def label_thresholds(self) -> dict[str, float]:
        """The score from which each label is given, for problems with thresholds. Default: none."""
        return {}

    def uncalibrated(self) -> Self:
        """The same target with a temperature of 1. Default: it has no temperature."""
        return self

    @abstractmethod
    def decode(self, logits: numpy.ndarray) -> list[Answer]:
        """Answers for logits (rows, outputs) in float64."""

    @abstractmethod
    def export_outputs(self, logits: "torch.Tensor") -> "dict[str, torch.Tensor]":
        """`decode` as an exported program computes it from logits (B, outputs): `scores`, or `answer` for numbers.

        Methods of tensors only: this file is imported without torch.
        """

    @abstractmethod
    def formula(self) -> str:
        """How logits become answers, as a sentence for the model card."""

    @abstractmethod
    def score(self, answers: list[Answer], labels: list[Any]) -> dict[str, Any]:
        """The metrics of answers, given the right cells."""
