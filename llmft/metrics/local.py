"""What all metrics here share: nothing is fetched, and nothing is left on the disk."""

import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import datasets
import evaluate


class LocalMetric(evaluate.Metric):
    """A metric over columns of the given types, rows in memory."""

    about: ClassVar[str]
    columns: ClassVar[dict[str, Any]]

    def __init__(self) -> None:
        # evaluate makes a folder even to keep rows in memory, and never writes into it: it may go at once, so that a
        # process which is killed leaves nothing. The home of a service may not be writable.
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
    """Precision, recall, F1 and the number of references of each class.

    Args:
        names: the classes.
        parts: the four numbers, each (classes,), as scikit-learn's and seqeval's
            `precision_recall_fscore_support(average=None)` give them.
    """
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(names, *parts, strict=True)
    }
