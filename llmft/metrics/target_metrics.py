"""Metrics of targets: one class per row, several classes per row, or a number."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy
from scipy import stats
from sklearn import metrics
from sklearn.preprocessing import MultiLabelBinarizer

from llmft.metrics.calibration import calibration_metrics, confusion
from llmft.metrics.local import LocalMetric, per_class


class Classification(LocalMetric):
    """Metrics of single-label classification.

    `precision`, `recall`, and `f1` are macro averages over the classes in the references or predictions. Their micro
    averages equal accuracy: a row has one class, so a false positive of one class is a false negative of another.
    `roc_auc` is that of the second of two classes, or the macro average of one class against the rest; None if a class
    has no row. `ece` is of the most probable class of each row.
    """

    about = "Accuracy; precision, recall, F1 (macro, micro, per class); ROC AUC; Matthews; ECE; the confusion."
    columns: ClassVar = {
        "predictions": datasets.Value("string"),
        "references": datasets.Value("string"),
        "scores": datasets.Sequence(datasets.Value("float64")),
    }

    def __init__(self, labels: list[str], temperature: float = 1.0) -> None:
        """`temperature`: the divisor of the logits in `scores`, from temperature scaling."""
        self.labels, self.temperature = labels, temperature
        super().__init__()

    def _compute(self, predictions: list[str], references: list[str], scores: list[list[float]]) -> dict[str, Any]:
        """All metrics.

        Args:
            predictions: the predicted class of each row.
            references: the right one.
            scores: (rows, labels) probabilities in the order of `labels`.
        """
        shares = numpy.asarray(scores, dtype=float)
        names = [name for name in self.labels if name in {*predictions, *references}]
        # As integers: each function of scikit-learn would sort and compare strings again.
        place = {name: number for number, name in enumerate(names)}
        predicted, true = (numpy.array([place[name] for name in column]) for column in (predictions, references))
        each = metrics.precision_recall_fscore_support(true, predicted, labels=range(len(names)), zero_division=0.0)
        macro = [float(numpy.mean(part)) for part in each[:3]]
        accuracy = float(numpy.mean(predicted == true))
        return {
            "accuracy": accuracy,
            **dict(zip(("precision", "recall", "f1"), macro, strict=True)),
            **dict.fromkeys(("precision_micro", "recall_micro", "f1_micro"), accuracy),
            "roc_auc": self._roc_auc(references, shares),
            "matthews": float(metrics.matthews_corrcoef(true, predicted)),
            **self._calibration(references, shares),
            "per_class": per_class(names, each),
            "confusion": confusion(references, predictions, self.labels),
        }

    def _roc_auc(self, references: list[str], shares: numpy.ndarray) -> float | None:
        truth = numpy.asarray(references)
        # With two labels, both curves have the same area.
        columns = [1] if len(self.labels) == 2 else range(len(self.labels))
        return roc_auc([truth == self.labels[column] for column in columns], [shares[:, c] for c in columns])

    def _calibration(self, references: list[str], shares: numpy.ndarray) -> dict[str, Any]:
        right = numpy.asarray(self.labels)[shares.argmax(axis=1)] == numpy.asarray(references)
        before = None
        if self.temperature != 1.0:
            powers = shares**self.temperature  # exp(z / T) to the power of T: the softmax of the logits themselves
            before = (powers.max(axis=1) / powers.sum(axis=1), right)
        return calibration_metrics((shares.max(axis=1), right), before)


def roc_auc(truths: Sequence[numpy.ndarray], scores: Sequence[numpy.ndarray]) -> float | None:
    """The mean over pairs of truth and score; None if a truth is the same for all rows, or a score is not a number."""
    if any(hits.all() or not hits.any() for hits in truths) or not numpy.isfinite(scores).all():
        return None
    return float(numpy.mean([metrics.roc_auc_score(hits, row) for hits, row in zip(truths, scores, strict=True)]))


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
        truth, predicted = table.transform(references), table.transform(predictions)
        shares = numpy.asarray(scores, dtype=float)
        present = numpy.flatnonzero((truth | predicted).any(axis=0))
        each = metrics.precision_recall_fscore_support(truth, predicted, average=None, zero_division=0.0)
        parts = {"": [float(part[present].mean()) if len(present) else 0.0 for part in each[:3]]}
        for average, none in (("micro", 0.0), ("samples", 1.0)):
            found = metrics.precision_recall_fscore_support(truth, predicted, average=average, zero_division=none)
            parts[f"_{average}"] = list(map(float, found[:3]))
        return {
            "subset_accuracy": float(metrics.accuracy_score(truth, predicted)),
            **{
                f"{name}{average}": value
                for average, values in parts.items()
                for name, value in zip(("precision", "recall", "f1"), values, strict=True)
            },
            "hamming_loss": float(metrics.hamming_loss(truth, predicted)),
            "roc_auc": roc_auc(list(truth.T.astype(bool)), list(shares.T)),
            **self._calibration(shares, truth),
            "per_class": per_class(self.labels, each),
        }

    def _calibration(self, shares: numpy.ndarray, truth: numpy.ndarray) -> dict[str, Any]:
        right, before = truth.ravel(), None
        if self.temperature != 1.0:
            odds = numpy.power(shares / numpy.maximum(1 - shares, 1e-300), self.temperature)  # exp of the logits
            before = ((odds / (1 + odds)).ravel(), right)
        return calibration_metrics((shares.ravel(), right), before)


class RegressionErrors(LocalMetric):
    """`mse`, `rmse`, `mae` in the units of the data; `r2`, 1 - squared error / variance; `pearson` and `spearman`.

    What cannot be computed is None: correlations where all answers or all references are one number, `r2` in the latter
    case.
    """

    about = "Mean squared and absolute error, R2, and the correlations of Pearson and Spearman."
    columns: ClassVar = {
        "predictions": datasets.Value("float64"),
        "references": datasets.Value("float64"),
    }

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, Any]:
        predicted, right = numpy.asarray(predictions, dtype=float), numpy.asarray(references, dtype=float)
        squared = float(metrics.mean_squared_error(right, predicted))
        varied = len(set(references)) > 1
        both = varied and len(set(predictions)) > 1
        with warnings.catch_warnings():  # answers that differ by rounding alone; the correlation is then no number
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            found = {
                "pearson": stats.pearsonr(predicted, right).statistic if both else None,
                "spearman": stats.spearmanr(predicted, right).statistic if both else None,
            }
        return {
            "mse": squared,
            "rmse": squared**0.5,
            "mae": float(metrics.mean_absolute_error(right, predicted)),
            "r2": float(metrics.r2_score(right, predicted)) if varied else None,
            **{name: float(v) if v is not None and numpy.isfinite(v) else None for name, v in found.items()},
        }
