"""The order of the training rows: new in every epoch, the same for the same seed and epoch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState


class EpochOrder(TrainerCallback):
    """Tells a sampler its epoch before the epoch is read.

    transformers tells it too, but not through the two shells that several processes and a resumed epoch put around it.
    """

    def __init__(self, sampler: "EpochSampler") -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class EpochSampler(Sampler[int]):
    """Shuffled row numbers; with `lengths`, rows of like length stand together, batch by batch.

    transformers' own length grouping draws from the global random state and can't be repeated from the second epoch
    on; this one depends on (seed, epoch) alone.
    """

    def __init__(self, rows: int, seed: int, batch_size: int, lengths: list[int] | None = None) -> None:
        """`batch_size` is the number of rows of one optimizer step, over all devices and accumulated batches."""
        self.rows = rows
        self.seed = seed
        self.batch_size = batch_size
        self.lengths = lengths
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counting from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.rows, generator=generator).tolist()
        return iter(order if self.lengths is None else self._grouped(order, generator))

    def _grouped(self, order: list[int], generator: torch.Generator) -> list[int]:
        """Sort windows of 50 shuffled batches by length, then shuffle the batches.

        A window keeps the neighbours of a row random: sorting all rows would make the same batches in every epoch.
        The longest batch comes first, so that memory runs out at once or not at all.
        """
        assert self.lengths is not None
        lengths, size = self.lengths, self.batch_size
        window = 50 * size
        order = [
            row
            for start in range(0, self.rows, window)
            for row in sorted(order[start : start + window], key=lambda row: -lengths[row])
        ]
        batches = [order[start : start + size] for start in range(0, self.rows, size)]
        whole, rest = (batches, []) if len(batches[-1]) == size else (batches[:-1], batches[-1:])
        shuffled = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
        longest = max(range(len(shuffled)), key=lambda i: lengths[shuffled[i][0]], default=0)
        if shuffled:
            shuffled[0], shuffled[longest] = shuffled[longest], shuffled[0]
        return [row for batch in shuffled + rest for row in batch]
