"""Scores of classes against classes: accuracy, precision, recall, F1, ROC AUC, Matthews, confusion."""

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy
from sklearn import metrics

from llmft.metrics.calibration import before_and_after
from llmft.metrics.confusion import confusion
from llmft.metrics.local import LocalMetric


class Classification(LocalMetric):
    """Metrics of a choice of one class of many.

    `precision`, `recall` and `f1` are macro averages over all classes that occur in the references or predictions. The
    micro averages equal accuracy: a row has one class, so a false positive of one class is a false negative of another.
    `roc_auc` is that of the second of two classes, or the macro average of one class against the rest; it is None where
    a class has no example. `ece` looks at the likeliest class of each row.
    """

    about = "Accuracy; precision, recall, F1 (macro, micro, per class); ROC AUC; Matthews; ECE; the confusion."
    columns: ClassVar = {
        "predictions": datasets.Value("string"),
        "references": datasets.Value("string"),
        "scores": datasets.Sequence(datasets.Value("float64")),
    }

    def __init__(self, labels: list[str], temperature: float = 1.0) -> None:
        """`temperature`: what the model's logits were divided by to make the scores."""
        self.labels, self.temperature = labels, temperature
        super().__init__()

    def _compute(self, predictions: list[str], references: list[str], scores: list[list[float]]) -> dict[str, Any]:
        """All metrics.

        Args:
            predictions: the class said for each row.
            references: the right one.
            scores: (rows, labels) probabilities in the order of `labels`.
        """
        shares = numpy.asarray(scores, dtype=float)
        names = [name for name in self.labels if name in {*predictions, *references}]
        # As numbers: scikit-learn looks at texts one by one, in each of its functions.
        place = {name: number for number, name in enumerate(names)}
        said, true = (numpy.array([place[name] for name in column]) for column in (predictions, references))
        each = metrics.precision_recall_fscore_support(true, said, labels=range(len(names)), zero_division=0.0)
        macro = [float(numpy.mean(part)) for part in each[:3]]
        accuracy = float(numpy.mean(said == true))
        return {
            "accuracy": accuracy,
            **dict(zip(("precision", "recall", "f1"), macro, strict=True)),
            **dict.fromkeys(("precision_micro", "recall_micro", "f1_micro"), accuracy),
            "roc_auc": self._roc_auc(references, shares),
            "matthews": float(metrics.matthews_corrcoef(true, said)),
            **self._calibration(references, shares),
            "per_class": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
                for name, p, r, f, s in zip(names, *each, strict=True)
            },
            "confusion": confusion(references, predictions, self.labels),
        }

    def _roc_auc(self, references: list[str], shares: numpy.ndarray) -> float | None:
        truth = numpy.asarray(references)
        # One label against the rest needs both kinds; with two labels one curve says all.
        columns = [1] if len(self.labels) == 2 else range(len(self.labels))
        return roc_auc([truth == self.labels[column] for column in columns], [shares[:, c] for c in columns])

    def _calibration(self, references: list[str], shares: numpy.ndarray) -> dict[str, Any]:
        right = numpy.asarray(self.labels)[shares.argmax(axis=1)] == numpy.asarray(references)
        before = None
        if self.temperature != 1.0:
            powers = shares**self.temperature  # exp(z / T) to the power of T: the softmax of the logits themselves
            before = (powers.max(axis=1) / powers.sum(axis=1), right)
        return before_and_after((shares.max(axis=1), right), before)


def roc_auc(truths: Sequence[numpy.ndarray], scores: Sequence[numpy.ndarray]) -> float | None:
    """The mean over pairs of truth and score; None where a truth is the same for all rows, or a score is no number."""
    if any(hits.all() or not hits.any() for hits in truths) or not numpy.isfinite(scores).all():
        return None
    return float(numpy.mean([metrics.roc_auc_score(hits, row) for hits, row in zip(truths, scores, strict=True)]))
