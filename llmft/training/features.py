"""From the rows of a split to its features: encoded once, kept as one Arrow table, read a whole batch at a time."""

from dataclasses import dataclass
from typing import Any

import pyarrow
from datasets import Dataset

from llmft.tasks.task import Task

CHUNK = 1000  # rows that are encoded at a time: the tokenizer is fast from a few hundred on, and memory stays small


@dataclass(frozen=True)
class FeatureSet:
    """The features of one split."""

    table: pyarrow.Table
    """What the collator gets, a column a key."""
    rows: list[int]
    """The row of each feature."""
    lengths: list[int] | None
    """The length of each feature, where lengths differ."""
    cut: int
    """Features that lost some of their row."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Features by number. torch's DataLoader calls this once a batch: 30 times faster than one by one."""
        return self.table.take(indices).to_pylist()


def encode(task: Task[Any], state: Any, rows: Dataset) -> FeatureSet:
    """Encode all rows of a split."""
    tables, owners, lengths, cut = [], [], [], 0
    for start in range(0, len(rows), CHUNK):
        features = task.encode(rows[start : start + CHUNK], state)
        owners += [start + row for row in features.pop("row")]
        lengths += features.pop("length", [])
        cut += sum(features.pop("cut", []))
        tables.append(pyarrow.table(features))
    table = pyarrow.concat_tables(tables).combine_chunks()
    return FeatureSet(table, owners, lengths or None, cut)
