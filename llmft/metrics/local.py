"""The base of all metrics here: an `evaluate.Metric` that downloads nothing and leaves nothing on the disk."""

import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import datasets
import evaluate


class LocalMetric(evaluate.Metric):
    """A metric over columns of given types, computed in memory. A subclass sets `about` and `columns`."""

    about: ClassVar[str]
    columns: ClassVar[dict[str, Any]]

    def __init__(self) -> None:
        # evaluate creates a folder even with keep_in_memory, and never writes into it. So it is a temporary one that is
        # deleted at once: a killed process leaves nothing, and the home of a service need not be writable.
        with tempfile.TemporaryDirectory(prefix="llmft-metric-") as folder:
            super().__init__(keep_in_memory=True, cache_dir=folder)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.about,
            citation="",
            inputs_description="",
            features=datasets.Features(self.columns),
        )


def per_class(names: Iterable[str], parts: Sequence[Iterable[float]]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1, and the number of references (`support`) of each class.

    Args:
        names: the classes.
        parts: four arrays, (classes,) each, from `precision_recall_fscore_support(average=None)` of scikit-learn or
            seqeval.
    """
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(names, *parts, strict=True)
    }
