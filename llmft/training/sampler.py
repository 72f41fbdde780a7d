"""The order of the training rows: new in every epoch, the same for the same seed and epoch."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState


class OfEpochs(Protocol):
    """Rows in an order of their own in every epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counting from 0."""


class EpochOrder(TrainerCallback):
    """Tells a sampler or a stream its epoch before the epoch is read.

    transformers tells it too, but not through the two shells that several processes and a resumed epoch put around it.
    """

    def __init__(self, rows: OfEpochs) -> None:
        self.rows = rows

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.rows.set_epoch(int(state.epoch or 0))


class EpochSampler(Sampler[int]):
    """The numbers of all rows, in the order of `shuffled`.

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
        return iter(shuffled(self.rows, self.batch_size, self.lengths, of_epoch(self.seed, self.epoch)))


def of_epoch(seed: int, epoch: int) -> torch.Generator:
    """The random numbers of one epoch."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def shuffled(rows: int, batch_size: int, lengths: list[int] | None, generator: torch.Generator) -> list[int]:
    """Row numbers at random; with `lengths`, rows of like length stand together, batch by batch.

    Windows of 50 shuffled batches are sorted by length, then the batches are shuffled. A window keeps the neighbours of
    a row random: sorting all rows would make the same batches in every epoch. The longest batch comes first, so that
    memory runs out at once or not at all.
    """
    order: list[int] = torch.randperm(rows, generator=generator).tolist()
    if lengths is None:
        return order
    window = 50 * batch_size
    order = [
        row
        for start in range(0, rows, window)
        for row in sorted(order[start : start + window], key=lambda row: -lengths[row])
    ]
    batches = [order[start : start + batch_size] for start in range(0, rows, batch_size)]
    whole, rest = (batches, []) if len(batches[-1]) == batch_size else (batches[:-1], batches[-1:])
    mixed = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
    longest = max(range(len(mixed)), key=lambda i: lengths[mixed[i][0]], default=0)
    if mixed:
        mixed[0], mixed[longest] = mixed[longest], mixed[0]
    return [row for batch in mixed + rest for row in batch]
