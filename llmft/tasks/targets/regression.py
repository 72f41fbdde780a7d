"""A number."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy

from llmft.data.source import Rows
from llmft.schema.column import Column
from llmft.schema.problem import Problem, UserError
from llmft.tasks.targets.config import ProblemType, TargetConfig
from llmft.tasks.targets.target import Target
from llmft.tasks.task import Answer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Regression(Target):
    """A number; the model's output is in standard deviations from the mean of the training rows.

    So one learning rate fits prices and shares alike, and huber turns from square to line at one standard deviation.
    """

    problem: ClassVar[ProblemType] = "regression"

    mean: float
    deviation: float

    @classmethod
    def column(cls, options: TargetConfig) -> Column:
        return Column("number")

    @classmethod
    def fit(cls, labels: list[Any], options: TargetConfig) -> Self:
        deviation = float(numpy.std(labels)) if labels else 0.0
        if len(set(labels)) < 2:
            what = f"train has one number only, {labels[0]:g}" if labels else "train has no number"
            raise UserError(Problem("dataset.columns.label", f"{what}; there is nothing to predict"), "the data")
        return cls(float(numpy.mean(labels)), deviation)

    def model_kwargs(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def check(self, rows: Rows, split: str) -> list[Problem]:
        return []  # every cell that was read as a number can be encoded

    def encode(self, labels: list[Any]) -> list[Any]:
        return [(number - self.mean) / self.deviation for number in labels]

    def decode(self, logits: numpy.ndarray) -> list[Answer]:
        return [{"answer": float(value) * self.deviation + self.mean} for value in logits[:, 0]]

    def export_outputs(self, logits: "torch.Tensor") -> "dict[str, torch.Tensor]":
        return {"answer": logits * self.deviation + self.mean}

    def formula(self) -> str:
        return f"The answer is `logits * {self.deviation:.9g} + {self.mean:.9g}`."

    def score(self, answers: list[Answer], labels: list[Any]) -> dict[str, Any]:
        """Squared and absolute errors, R2 and correlations; see llmft.metrics.target_metrics."""
        from llmft.metrics.target_metrics import RegressionErrors  # evaluate imports pipelines, which takes seconds

        return RegressionErrors().compute(predictions=[answer["answer"] for answer in answers], references=labels)
