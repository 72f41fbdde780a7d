"""Scores of several labels a row: subset accuracy, F1 and its parts, Hamming loss, ROC AUC."""

from typing import Any, ClassVar

import datasets
import numpy
from sklearn import metrics
from sklearn.preprocessing import MultiLabelBinarizer

from llmft.metrics.calibration import before_and_after
from llmft.metrics.classification import roc_auc
from llmft.metrics.local import LocalMetric


class MultiLabelClassification(LocalMetric):
    """Metrics of a choice of any number of classes.

    `precision`, `recall` and `f1` are macro averages over the labels that occur in the references or predictions;
    `_micro` counts all cells of the table of rows and labels together; `_samples` is the mean over rows, where a row
    that has no label and gets none counts as 1. `subset_accuracy` is the share of rows with all labels right,
    `hamming_loss` that of cells that are wrong. `ece` looks at all cells. `roc_auc` is the mean over labels; it is None
    where all rows or none have one of them.
    """

    about = "Subset accuracy; precision, recall and F1 (macro, micro, by row, per label); Hamming loss; ROC AUC."
    columns: ClassVar = {
        "predictions": datasets.Sequence(datasets.Value("string")),
        "references": datasets.Sequence(datasets.Value("string")),
        "scores": datasets.Sequence(datasets.Value("float64")),
    }

    def __init__(self, labels: list[str], temperature: float = 1.0) -> None:
        self.labels, self.temperature = labels, temperature
        super().__init__()

    def _compute(
        self, predictions: list[list[str]], references: list[list[str]], scores: list[list[float]]
    ) -> dict[str, Any]:
        """All metrics.

        Args:
            predictions: the labels said for each row.
            references: the right ones.
            scores: (rows, labels) in the order of `labels`.
        """
        table = MultiLabelBinarizer(classes=self.labels).fit([])
        truth, said = table.transform(references), table.transform(predictions)
        shares = numpy.asarray(scores, dtype=float)
        present = numpy.flatnonzero((truth | said).any(axis=0))
        each = metrics.precision_recall_fscore_support(truth, said, average=None, zero_division=0.0)
        parts = {"": [float(part[present].mean()) if len(present) else 0.0 for part in each[:3]]}
        for average, none in (("micro", 0.0), ("samples", 1.0)):
            found = metrics.precision_recall_fscore_support(truth, said, average=average, zero_division=none)
            parts[f"_{average}"] = list(map(float, found[:3]))
        return {
            "subset_accuracy": float(metrics.accuracy_score(truth, said)),
            **{
                f"{name}{average}": value
                for average, values in parts.items()
                for name, value in zip(("precision", "recall", "f1"), values, strict=True)
            },
            "hamming_loss": float(metrics.hamming_loss(truth, said)),
            "roc_auc": roc_auc(list(truth.T.astype(bool)), list(shares.T)),
            **self._calibration(shares, truth),
            "per_class": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
                for name, p, r, f, s in zip(self.labels, *each, strict=True)
            },
        }

    def _calibration(self, shares: numpy.ndarray, truth: numpy.ndarray) -> dict[str, Any]:
        right, before = truth.ravel(), None
        if self.temperature != 1.0:
            odds = numpy.power(shares / numpy.maximum(1 - shares, 1e-300), self.temperature)  # exp of the logits
            before = ((odds / (1 + odds)).ravel(), right)
        return before_and_after((shares.ravel(), right), before)
