"""Scores of classes against classes: accuracy, precision, recall, F1, ROC AUC, Matthews, confusion."""

import tempfile
from typing import Any

import datasets
import evaluate
import numpy
from sklearn import metrics

DESCRIPTION = "Accuracy; precision, recall and F1 (macro, micro, per class); ROC AUC; Matthews; the confusion matrix."


class Classification(evaluate.Metric):
    """Metrics of a choice of one class of many.

    `precision`, `recall` and `f1` are macro averages over all classes that occur in the references or predictions;
    with two classes or more of one label each, the micro averages equal accuracy. `roc_auc` is that of the second of
    two classes, or the macro average of one class against the rest; it is None where a class has no example.
    """

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels
        # evaluate makes a folder even to keep rows in memory; the home of a service may not be writable.
        self._folder = tempfile.TemporaryDirectory(prefix="llmft-metric-")
        super().__init__(keep_in_memory=True, cache_dir=self._folder.name)

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value("string"),
            "references": datasets.Value("string"),
            "scores": datasets.Sequence(datasets.Value("float64")),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description="", features=datasets.Features(features)
        )

    def _compute(self, predictions: list[str], references: list[str], scores: list[list[float]]) -> dict[str, Any]:
        """All metrics.

        Args:
            predictions: the class said for each row.
            references: the right one.
            scores: (rows, labels) probabilities in the order of `labels`.
        """
        names = [name for name in self.labels if name in {*predictions, *references}]
        each = metrics.precision_recall_fscore_support(references, predictions, labels=names, zero_division=0.0)
        macro = [float(numpy.mean(part)) for part in each[:3]]
        micro = metrics.precision_recall_fscore_support(
            references, predictions, labels=names, average="micro", zero_division=0.0
        )
        return {
            "accuracy": float(metrics.accuracy_score(references, predictions)),
            **dict(zip(("precision", "recall", "f1"), macro, strict=True)),
            **dict(zip(("precision_micro", "recall_micro", "f1_micro"), map(float, micro[:3]), strict=True)),
            "roc_auc": self._roc_auc(references, numpy.asarray(scores)),
            "matthews": float(metrics.matthews_corrcoef(references, predictions)),
            "per_class": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
                for name, p, r, f, s in zip(names, *each, strict=True)
            },
            "confusion": {
                "labels": self.labels,
                "matrix": metrics.confusion_matrix(references, predictions, labels=self.labels).tolist(),
            },
        }

    def _roc_auc(self, references: list[str], scores: numpy.ndarray) -> float | None:
        truth = numpy.asarray(references)
        # One label against the rest needs both kinds; with two labels one curve says all.
        columns = [1] if len(self.labels) == 2 else range(len(self.labels))
        curves = [(truth == self.labels[column], scores[:, column]) for column in columns]
        if not numpy.isfinite(scores).all() or any(hits.all() or not hits.any() for hits, _ in curves):
            return None
        return float(numpy.mean([metrics.roc_auc_score(hits, column) for hits, column in curves]))
