"""What the metrics of this repository share: nothing is fetched, and nothing is left on the disk."""

import tempfile
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
