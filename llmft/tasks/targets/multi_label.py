"""Any number of labels of many."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy

from llmft.data.source import Rows
from llmft.schema.column import Column
from llmft.schema.problem import Problem
from llmft.tasks.targets import labels as names
from llmft.tasks.targets.config import ProblemType, TargetConfig
from llmft.tasks.targets.decisions import OF_EACH, best_threshold, sigmoid, temperature
from llmft.tasks.targets.target import Target
from llmft.tasks.task import Answer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class MultiLabel(Target):
    """Each label whose score reaches its threshold."""

    problem: ClassVar[ProblemType] = "multi_label"

    labels: list[str]
    thresholds: list[float]
    weights: list[float] | None = None
    temperature: float = 1.0

    @classmethod
    def column(cls, options: TargetConfig) -> Column:
        return Column("labels", separator=options.separator, labels=tuple(options.labels or ()))

    @classmethod
    def fit(cls, labels: list[Any], options: TargetConfig) -> Self:
        counts = Counter(name for cell in labels for name in cell)
        known = names.learn(list(counts), options.labels)
        # Positive cells of a label have the same total weight as its negative ones.
        balanced = [(len(labels) - counts[name]) / counts[name] if counts[name] else 1.0 for name in known]
        # A label that all rows have would get the weight 0.
        weights = names.weights(known, options.class_weights, [weight or 1.0 for weight in balanced])
        given = options.threshold if isinstance(options.threshold, float) else 0.5
        return cls(known, [given] * len(known), weights)

    def model_kwargs(self) -> dict[str, Any]:
        return names.model_kwargs(self.labels, self.problem)

    def check(self, rows: Rows, split: str) -> list[Problem]:
        return names.check(rows, self.labels, split)

    def notes(self, labels: list[Any], options: TargetConfig) -> list[str]:
        return names.notes(labels, self.labels, options)

    def encode(self, labels: list[Any]) -> list[Any]:
        return [[float(name in cell) for name in self.labels] for cell in map(set, labels)]

    def row_weights(self, labels: numpy.ndarray) -> numpy.ndarray | None:
        if self.weights is None:
            return None
        return numpy.where(labels > 0, numpy.array(self.weights, dtype=numpy.float32), numpy.float32(1))

    def calibrate(self, logits: numpy.ndarray, labels: list[Any], options: TargetConfig) -> Self:
        truth = numpy.array(self.encode(labels)) > 0  # (rows, labels)
        found = self
        if options.calibrate:
            towards = numpy.where(truth, logits, -logits)  # -log sigmoid of it is the loss of a cell
            found = replace(found, temperature=temperature(lambda value: numpy.logaddexp(0, -towards / value).mean()))
        scores = sigmoid(logits / found.temperature)
        wanted = options.threshold
        columns = zip(scores.T, truth.T, strict=True)
        return replace(found, thresholds=[best_threshold(column, yes, wanted, OF_EACH) for column, yes in columns])

    def label_thresholds(self) -> dict[str, float]:
        return dict(zip(self.labels, self.thresholds, strict=True))

    def uncalibrated(self) -> Self:
        return replace(self, temperature=1.0)

    def decode(self, logits: numpy.ndarray) -> list[Answer]:
        scores = sigmoid(logits / self.temperature)
        given = scores >= self.thresholds
        return [
            {
                "answer": [name for name, yes in zip(self.labels, said, strict=True) if yes],
                "scores": dict(zip(self.labels, map(float, row), strict=True)),
            }
            for said, row in zip(given, scores, strict=True)
        ]

    def export_outputs(self, logits: "torch.Tensor") -> "dict[str, torch.Tensor]":
        return {"scores": (logits / self.temperature).sigmoid()}

    def formula(self) -> str:
        divided = "" if self.temperature == 1 else f" / {self.temperature:.9g}"
        return (
            f"`scores` are `sigmoid(logits{divided})`; the answer is each label whose score reaches its own of "
            "`target.thresholds` in `task.json`."
        )

    def score(self, answers: list[Answer], labels: list[Any]) -> dict[str, Any]:
        """F1 and its companions; see llmft.metrics.target_metrics."""
        from llmft.metrics.target_metrics import MultiLabelClassification  # evaluate imports pipelines: seconds

        return MultiLabelClassification(self.labels, self.temperature).compute(
            predictions=[answer["answer"] for answer in answers],
            references=labels,
            scores=[[answer["scores"][name] for name in self.labels] for answer in answers],
        )
