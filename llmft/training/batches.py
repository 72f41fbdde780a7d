"""From features to the batches of training: the order of an epoch, rows that are streamed in it, and packing.

The order is new in every epoch, and depends on (seed, epoch) alone.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, Sampler, get_worker_info

from llmft.data.stream import Stream
from llmft.models.labelled import IGNORED, labelled_logits
from llmft.schema.config import Config
from llmft.schema.problem import Failure, Problem, UserError
from llmft.tasks.task import Task
from llmft.training.features import encode

WINDOW = 10_000  # rows that are shuffled together; 128 tokens each take 10 MB
PACKED_LENGTHS = (9, 6, 4)  # of the rows by which packing is tried; none of them is alone in its sequence
PACKED_LIMIT = 1e-4  # of max|a - b| / max|a|: float32 gives 1e-6, and a row that sees another 1e-2


class EpochSampler(Sampler[int]):
    """The numbers of all rows, in the order of `shuffled`.

    transformers' own length grouping draws from the global random state and cannot be repeated from the second epoch
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
                raise Failure(f"{self.task.config.__name__} makes several features of a row, which cannot be streamed")
            lengths = features.lengths if self.grouped else None
            order = shuffled(len(features), self.step_size, lengths, generator)
            for start in range(0, len(order), self.step_size):
                yield from features.__getitems__(order[start : start + self.step_size])


class Packing:
    """A collator around another one: padded rows become sequences of several rows, so hardly any padding is computed.

    transformers lets no row see another where there is no attention mask and the positions begin again: see
    `find_packed_sequence_indices` in its masking_utils. Whether a model goes by that is tried before training.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]) -> None:
        self.collate = collate

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors (S, W) of each key (B, T) of the padded batch but its attention mask, and `position_ids` (S, W).

        S sequences hold all B rows, each none longer than W, the longest row. The first token of a row has no label:
        it would be what the row before it says next. What is left over at the end counts as a row of its own.
        """
        batch = self.collate(features)
        mask = batch.pop("attention_mask").bool()
        lengths = mask.sum(dim=1).tolist()
        width = max(lengths)
        sequences = fitted(lengths, width)
        rest = [width - sum(lengths[row] for row in rows) for rows in sequences]
        packed = {}
        for key, values in batch.items():
            if values.shape != mask.shape:  # nothing of single tokens, such as a prompt that stands beside its row
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


def fitted(lengths: list[int], width: int) -> list[list[int]]:
    """Rows by number in sequences of at most `width` tokens: the longest row first, each where it fits first.

    First-fit decreasing (Johnson 1973) needs at most 11/9 of the fewest sequences that would do, and one more.
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
    """What makes the batches of training: those of the task, packed where that is asked for."""
    collate = task.collator()
    return Packing(collate) if config.trainer.packing else collate


def check_packing(model: Any, name: str) -> None:
    """Raise UserError for a model that says something else of rows in one sequence than of the same rows apart."""
    if why := mixes(model):
        hint = "Write trainer.packing=false; trainer.group_by_length=true saves most of the padding too."
        raise UserError(Problem("trainer.packing", f"{name} ({type(model).__name__}) {why}", hint=hint))


def mixes(model: Any) -> str:
    """How a model fails with packed rows, in a few words; empty for one that keeps them apart."""
    if model.config.is_encoder_decoder or not model.can_generate():
        return "is not a decoder"
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return "does not take positions, which tell where a row begins"
    device = next(model.parameters()).device
    random = torch.Generator().manual_seed(0)
    rows = [torch.randint(model.config.get_text_config().vocab_size, (n,), generator=random) for n in PACKED_LENGTHS]
    ids = torch.cat(rows)[None].to(device)
    positions = torch.cat([torch.arange(n) for n in PACKED_LENGTHS])[None].to(device)
    trains = model.training
    model.eval()
    with torch.no_grad():
        together = labelled_logits(model, {"input_ids": ids, "position_ids": positions}, torch.ones_like(ids) > 0)
        alone = torch.cat(
            [
                labelled_logits(
                    model, {"input_ids": row, "attention_mask": torch.ones_like(row)}, torch.ones_like(row) > 0
                )
                for row in (row[None].to(device) for row in rows)
            ]
        )
    model.train(trains)
    difference = float((together - alone).abs().max() / alone.abs().max())
    if difference <= PACKED_LIMIT:
        return ""
    return f"lets the rows of a sequence see each other: its outputs differ by {difference:.0e} of their size"
