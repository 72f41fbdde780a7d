"""From features to the batches of training: the order of rows in an epoch, streamed rows, and packing.

The order is new in every epoch. It depends on (seed, epoch) only, so that a resumed run reads what it would have read.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from llmft.data.stream import Stream
from llmft.models.labeled import labeled_logits
from llmft.schema.config import Config
from llmft.schema.problem import Failure, Problem, UserError
from llmft.schema.tasks import IGNORED
from llmft.tasks.task import Task
from llmft.training.features import FeatureSet, encode

WINDOW = 10_000  # streamed rows that are shuffled together; of 128 tokens each they take 10 MB
PACKED_LENGTHS = (9, 6, 4)  # lengths of the rows that `check_packing` packs into one sequence
PACKED_TOLERANCE = 1e-4  # of max|a - b| / max|a|: float32 rounding gives 1e-6, a row that sees another 1e-2


class EpochSampler(Sampler[int]):
    """The indices of all rows, in the order of `shuffle`.

    transformers' own length grouping draws from the global random state, so a resumed run could not repeat its order
    from the second epoch on. This one depends on (seed, epoch) only.
    """

    def __init__(self, rows: int, seed: int, batch_size: int, lengths: list[int] | None = None) -> None:
        """`batch_size` is the effective one: rows of an optimizer step, over all devices and accumulated batches."""
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
        return iter(shuffle(self.rows, self.batch_size, self.lengths, epoch_generator(self.seed, self.epoch)))


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The random generator of one epoch."""
    # Seeds are further apart than epochs can be many, so that seed 1, epoch 1 does not repeat seed 2, epoch 0.
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def shuffle(rows: int, batch_size: int, lengths: list[int] | None, generator: torch.Generator) -> list[int]:
    """Row indices in random order; with `lengths`, rows of similar length share a batch.

    Windows of 50 batches are sorted by length, then the batches are shuffled, as in transformers' own length grouping.
    Sorting all rows instead would make the same batches in every epoch. The longest batch comes first, so that memory
    runs out in the first step or never.

    Args:
        batch_size: rows of one optimizer step.
        lengths: tokens of each row; None for plain random order.
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
    # A short last batch stays last: elsewhere it would shift all rows after it by a part of a batch.
    whole, rest = (batches, []) if len(batches[-1]) == batch_size else (batches[:-1], batches[-1:])
    mixed = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
    longest = max(range(len(mixed)), key=lambda i: lengths[mixed[i][0]], default=0)
    if mixed:
        mixed[0], mixed[longest] = mixed[longest], mixed[0]
    return [row for batch in mixed + rest for row in batch]


class Drawn(Dataset[dict[str, Any]]):
    """Features with a `draw` each: the number that decides how the row is augmented in this epoch."""

    def __init__(self, features: FeatureSet, seed: int) -> None:
        self.features, self.seed = features, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw for an epoch, counting from 0. Worker processes, which start with each epoch, get the same numbers."""
        # Another generator than that of the order, whose first numbers these would be otherwise.
        generator = epoch_generator(self.seed + 2**31, epoch)
        self.draws = torch.randint(2**63 - 1, (len(self.features),), generator=generator)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Features by index, each with its `draw`."""
        rows = self.features.__getitems__(indices)
        return [row | {"draw": draw} for row, draw in zip(rows, self.draws[indices].tolist(), strict=True)]


class FeatureStream(IterableDataset[dict[str, Any]]):
    """The features of streamed rows, epoch by epoch.

    The chunks of all files are shuffled, so that a window holds rows from at least ten random places; then the rows of
    each window are shuffled. Each worker takes an equal part of the sequence, cut between two batches, so an epoch has
    the same number of batches with and without workers. The order depends on the seed, the epoch, and the number of
    workers.
    """

    def __init__(
        self, task: Task[Any], rows: Stream, seed: int, batch_size: int, accumulation: int, grouped: bool
    ) -> None:
        """`batch_size` is the rows of one batch over all devices; a step takes `accumulation` of them."""
        self.task, self.rows, self.seed = task, rows, seed
        self.batch_size, self.step_size, self.grouped = batch_size, batch_size * accumulation, grouped
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counting from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        generator = epoch_generator(self.seed, self.epoch)
        chunks = torch.randperm(len(self.rows.chunks), generator=generator).tolist()
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        # A cut within a batch would give each worker a short last batch, and the epoch more steps than were planned.
        batches = math.ceil(len(self) / self.batch_size)
        first, last = (min(batches * i // parts * self.batch_size, len(self)) for i in (part, part + 1))
        window = max(WINDOW // self.step_size, 1) * self.step_size  # whole steps, so that none spans two windows
        for rows in self.rows.windows(chunks, first, last, window):
            features = encode(self.task, rows)
            if len(features) != len(rows):
                raise Failure(f"{self.task.config.__name__} makes several features of a row, which cannot be streamed")
            lengths = features.lengths if self.grouped else None
            order = shuffle(len(features), self.step_size, lengths, generator)
            for start in range(0, len(order), self.step_size):
                yield from features.__getitems__(order[start : start + self.step_size])


class Packing:
    """Wraps a collator: puts several rows into one sequence, so that little padding is computed.

    Where a batch has no attention mask and its positions restart at 0, transformers keeps the rows of a sequence from
    attending to each other: see `find_packed_sequence_indices` in its masking_utils. Some models ignore that, so
    `check_packing` tries the model before training.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]) -> None:
        self.collate = collate

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Each (B, T) tensor of the padded batch as (S, W), without `attention_mask`, and with `position_ids` (S, W).

        S sequences hold all B rows; W is the length of the longest row. The first token of a row has no label, since
        the last token of the row before it would have to predict it. The padding at the end of a sequence counts as a
        row of its own.
        """
        batch = self.collate(features)
        mask = batch.pop("attention_mask").bool()
        lengths = mask.sum(dim=1).tolist()
        width = max(lengths)
        sequences = first_fit_decreasing(lengths, width)
        rest = [width - sum(lengths[row] for row in rows) for rows in sequences]
        packed = {}
        for key, values in batch.items():
            if values.shape != mask.shape:  # not one value per token, such as a prompt of another length
                packed[key] = values
                continue
            fill = IGNORED if key == "labels" else 0
            parts = [row[kept] for row, kept in zip(values, mask, strict=True)]
            if key == "labels":
                parts = [torch.cat([part.new_full((1,), IGNORED), part[1:]]) for part in parts]
            packed[key] = torch.stack(
                [
                    torch.cat([*(parts[row] for row in rows), values.new_full((free,), fill)])
                    for rows, free in zip(sequences, rest, strict=True)
                ]
            )
        packed["position_ids"] = torch.stack(
            [
                torch.cat([torch.arange(length) for length in (*(lengths[row] for row in rows), free)])
                for rows, free in zip(sequences, rest, strict=True)
            ]
        )
        return packed


def first_fit_decreasing(lengths: list[int], width: int) -> list[list[int]]:
    """Row indices per sequence of at most `width` tokens: longest row first, each into the first sequence with room.

    First-fit decreasing needs at most 11/9 of the optimal number of sequences, plus one (Johnson 1973).
    """
    sequences: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        place = next((place for place, free in enumerate(room) if free >= lengths[row]), None)
        if place is None:
            sequences.append([])
            room.append(width)
            place = -1
        sequences[place].append(row)
        room[place] -= lengths[row]
    return sequences


def collator(config: Config, task: Task[Any]) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """The task's collator for training: it augments, or is wrapped in `Packing` for trainer.packing=true."""
    collate: Callable[..., dict[str, torch.Tensor]] = task.objective.collate
    if task.objective.augments and config.augment.active:
        return partial(collate, augment=config.augment)
    return Packing(collate) if config.trainer.packing else collate


def check_packing(model: Any, name: str) -> None:
    """Raise UserError for a model whose outputs for packed rows differ from those for single rows."""
    if why := why_packing_fails(model):
        hint = "Write trainer.packing=false; trainer.group_by_length=true saves most of the padding too."
        raise UserError(Problem("trainer.packing", f"{name} ({type(model).__name__}) {why}", hint=hint))


def why_packing_fails(model: Any) -> str:
    """Why a model cannot train on packed rows, in a few words; empty if it can.

    Tried on a random sequence, since nothing in a config tells: a model may accept `position_ids` and still attend
    across rows.
    """
    if model.config.is_encoder_decoder or not model.can_generate():
        return "is not a decoder"
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return "does not take position_ids, which tell where a row begins"
    device = next(model.parameters()).device
    random = torch.Generator().manual_seed(0)
    rows = [torch.randint(model.config.get_text_config().vocab_size, (n,), generator=random) for n in PACKED_LENGTHS]
    ids = torch.cat(rows)[None].to(device)
    positions = torch.cat([torch.arange(n) for n in PACKED_LENGTHS])[None].to(device)
    trains = model.training
    model.eval()
    with torch.no_grad():
        together = labeled_logits(model, {"input_ids": ids, "position_ids": positions}, torch.ones_like(ids) > 0)
        alone = torch.cat(
            [
                labeled_logits(
                    model, {"input_ids": row, "attention_mask": torch.ones_like(row)}, torch.ones_like(row) > 0
                )
                for row in (row[None].to(device) for row in rows)
            ]
        )
    model.train(trains)
    difference = float((together - alone).abs().max() / alone.abs().max())
    if difference <= PACKED_TOLERANCE:
        return ""
    return f"lets packed rows attend to each other: its outputs differ by {difference:.0e} of their size"
