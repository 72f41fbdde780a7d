"""Packed batches: rows put one after the other into few sequences, so that hardly any padding is computed.

transformers lets no row see another where there is no attention mask and the positions begin again: see
`find_packed_sequence_indices` in its masking_utils. Whether a model goes by that is tried before training.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from llmft.models.labelled import IGNORED, labelled_logits
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError
from llmft.tasks.task import Task

LENGTHS = (9, 6, 4)  # of the rows that are tried; none of them is alone in its sequence
LIMIT = 1e-4  # of max|a - b| / max|a|: float32 gives 1e-6, and a row that sees another 1e-2


class Packing:
    """A collator around another one, whose padded rows become sequences of several rows."""

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
        return "is no decoder"
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return "does not take positions, which tell where a row begins"
    device = next(model.parameters()).device
    random = torch.Generator().manual_seed(0)
    rows = [torch.randint(model.config.get_text_config().vocab_size, (n,), generator=random) for n in LENGTHS]
    ids = torch.cat(rows)[None].to(device)
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None].to(device)
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
    if difference <= LIMIT:
        return ""
    return f"lets the rows of a sequence see each other: its outputs differ by {difference:.0e} of their size"
