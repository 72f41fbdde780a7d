"""Features of rows that are read while training: shuffled and grouped by length as in memory, a window at a time."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from llmft.data.stream import Stream
from llmft.schema.problem import Failure
from llmft.tasks.task import Task
from llmft.training.features import encode
from llmft.training.sampler import of_epoch, shuffled

WINDOW = 10_000  # rows that are shuffled together; 128 tokens each take 10 MB


class FeatureStream(IterableDataset[dict[str, Any]]):
    """The features of an epoch, one after the other.

    All chunks of all files are shuffled, so that a window holds rows from ten random places or more; then the rows of
    a window are. Each worker takes an equal part of the sequence, parted between two batches: an epoch has as many
    batches as it has without workers. The order depends on the seed, the epoch and the number of workers.
    """

    def __init__(
        self, task: Task[Any], rows: Stream, seed: int, batch_size: int, accumulation: int, grouped: bool
    ) -> None:
        """`batch_size` is the number of rows of one batch over all devices; `accumulation` of them make a step."""
        self.task, self.rows, self.seed = task, rows, seed
        self.batch_size, self.step_size, self.grouped = batch_size, batch_size * accumulation, grouped
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counting from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        generator = of_epoch(self.seed, self.epoch)
        chunks = torch.randperm(len(self.rows.chunks), generator=generator).tolist()
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        batches = math.ceil(len(self) / self.batch_size)
        first, last = (min(batches * i // parts * self.batch_size, len(self)) for i in (part, part + 1))
        window = max(WINDOW // self.step_size, 1) * self.step_size
        for rows in self.rows.windows(chunks, first, last, window):
            features = encode(self.task, rows)
            if len(features) != len(rows):
                raise Failure(f"{self.task.config.__name__} makes several features of a row, which can't be streamed")
            lengths = features.lengths if self.grouped else None
            order = shuffled(len(features), self.step_size, lengths, generator)
            for start in range(0, len(order), self.step_size):
                yield from features.__getitems__(order[start : start + self.step_size])
