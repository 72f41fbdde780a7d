"""One label of many."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy

from llmft.data.source import Rows
from llmft.schema.column import Column
from llmft.schema.problem import Problem, UserError
from llmft.tasks.targets import labels as names
from llmft.tasks.targets.config import ProblemType, TargetConfig
from llmft.tasks.targets.decisions import OF_TWO, best_threshold, softmax, temperature
from llmft.tasks.targets.target import Target
from llmft.tasks.task import Answer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SingleLabel(Target):
    """The label with the highest score; with two labels, the second from a threshold."""

    problem: ClassVar[ProblemType] = "single_label"

    labels: list[str]
    weights: list[float] | None = None
    temperature: float = 1.0
    threshold: float | None = None
    """The score from which the second of two labels is given. None: the label with the highest score."""

    @classmethod
    def column(cls, options: TargetConfig) -> Column:
        return Column("label", labels=tuple(options.labels or ()))

    @classmethod
    def fit(cls, labels: list[Any], options: TargetConfig) -> Self:
        known = names.learn(labels, options.labels)
        counts = Counter(labels)
        # n / (C n_c), as in scikit-learn: the mean over the training rows is 1.
        balanced = [len(labels) / (len(known) * counts[name]) if counts[name] else 1.0 for name in known]
        weights = names.weights(known, options.class_weights, balanced)
        threshold = None if options.threshold == 0.5 else options.threshold
        if threshold is not None and len(known) != 2:
            what = f"is for two labels, and there are {len(known)}: the likeliest is given"
            raise UserError(Problem("task.threshold", what, hint="Leave it out."), "the data")
        return cls(known, weights, threshold=None if isinstance(threshold, str) else threshold)

    def model_kwargs(self) -> dict[str, Any]:
        return names.model_kwargs(self.labels, self.problem)

    def check(self, rows: Rows, split: str) -> list[Problem]:
        return names.check(rows, self.labels, split)

    def notes(self, labels: list[Any], options: TargetConfig) -> list[str]:
        return names.notes(labels, self.labels, options)

    def encode(self, labels: list[Any]) -> list[Any]:
        places = {name: place for place, name in enumerate(self.labels)}
        return [places[label] for label in labels]

    def row_weights(self, labels: numpy.ndarray) -> numpy.ndarray | None:
        return None if self.weights is None else numpy.array(self.weights, dtype=numpy.float32)[labels]

    def calibrate(self, logits: numpy.ndarray, labels: list[Any], options: TargetConfig) -> Self:
        right = numpy.array(self.encode(labels))
        found = self
        if options.calibrate:
            # Cross entropy with the maximum subtracted before exp, which could overflow.
            def loss(value: float) -> float:
                scaled = logits / value
                highest = scaled.max(axis=1)
                logsum = highest + numpy.log(numpy.exp(scaled - highest[:, None]).sum(axis=1))
                return float((logsum - scaled[numpy.arange(len(right)), right]).mean())

            found = replace(found, temperature=temperature(loss))
        # After the temperature, which moves the scores that the threshold is compared with.
        if isinstance(options.threshold, str):
            scores = softmax(logits / found.temperature)[:, 1]
            found = replace(found, threshold=best_threshold(scores, right == 1, options.threshold, OF_TWO))
        return found

    def label_thresholds(self) -> dict[str, float]:
        if len(self.labels) != 2:
            return {}
        # With two labels p >= t for the second is 1 - p > 1 - t for the first: both have a threshold in an ensemble.
        cut = 0.5 if self.threshold is None else self.threshold
        return dict(zip(self.labels, (1 - cut, cut), strict=True))

    def uncalibrated(self) -> Self:
        return replace(self, temperature=1.0)

    def decode(self, logits: numpy.ndarray) -> list[Answer]:
        shares = softmax(logits / self.temperature)
        likeliest = logits.argmax(axis=1)
        best = likeliest if self.threshold is None else (shares[:, 1] >= self.threshold).astype(int)
        return [
            {"answer": self.labels[winner], "scores": dict(zip(self.labels, map(float, row), strict=True))}
            for winner, row in zip(best, shares, strict=True)
        ]

    def export_outputs(self, logits: "torch.Tensor") -> "dict[str, torch.Tensor]":
        return {"scores": (logits / self.temperature).softmax(dim=-1)}

    def formula(self) -> str:
        divided = "" if self.temperature == 1 else f" / {self.temperature:.9g}"
        cut = (
            "" if self.threshold is None else f" if its score is at least {self.threshold:.9g}, else {self.labels[0]!r}"
        )
        return f"`scores` are `softmax(logits{divided})`; the answer is " + (
            f"{self.labels[1]!r}{cut}." if cut else "the label with the highest."
        )

    def score(self, answers: list[Answer], labels: list[Any]) -> dict[str, Any]:
        """Accuracy and its companions; see llmft.metrics.target_metrics."""
        from llmft.metrics.target_metrics import Classification  # evaluate imports pipelines, which takes seconds

        return Classification(self.labels, self.temperature).compute(
            predictions=[answer["answer"] for answer in answers],
            references=labels,
            scores=[[answer["scores"][name] for name in self.labels] for answer in answers],
        )
