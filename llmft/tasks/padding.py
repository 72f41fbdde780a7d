"""Puts features of different lengths into arrays, by numpy alone: batches of training and of a service are the same."""

from collections.abc import Sequence
from typing import Any

import numpy

from llmft.schema.tasks import IGNORED

Arrays = dict[str, numpy.ndarray]


def pad_values(tokenizer: Any) -> dict[str, int]:
    """The padding of each key that holds a number a token."""
    return {
        "input_ids": tokenizer.pad_token_id,
        "token_type_ids": tokenizer.pad_token_type_id,
        "labels": IGNORED,
    }


def pad(features: list[dict[str, Any]], values: dict[str, int], side: str = "right") -> Arrays:
    """Pad each key no wider than its longest row, and add the attention mask.

    [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}], padded by 0 on the right, become `input_ids` [[5, 6, 7], [8, 0, 0]]
    and `attention_mask` [[1, 1, 1], [1, 0, 0]].

    Args:
        values: the padding of each sequence key, such as {"input_ids": 0}; other keys, and numbers, are stacked.

    Returns:
        arrays (B, longest of the key), or (B,) for numbers, and `attention_mask`, which is as wide as `input_ids`.
    """
    batch: Arrays = {}
    for key in features[0]:
        rows = [feature[key] for feature in features]
        sequences = key in values and isinstance(rows[0], list)
        batch[key] = padded(rows, values[key], side) if sequences else stack(rows)
    batch["attention_mask"] = padded([numpy.ones(len(row["input_ids"]), numpy.int64) for row in features], 0, side)
    return batch


def padded(rows: Sequence[Any], value: int, side: str = "right") -> numpy.ndarray:
    """Rows of numbers as one array (rows, longest row): int64, or of rows of one length what `stack` gives."""
    lengths = set(map(len, rows))
    width = max(lengths)
    if len(lengths) == 1 and width:
        return stack(rows)
    found = numpy.full((len(rows), width), value, dtype=numpy.int64)
    for line, row in zip(found, rows, strict=True):
        line[width - len(row) if side == "left" else 0 :][: len(row)] = row
    return found


def stack(rows: Sequence[Any], dtype: str | None = None) -> numpy.ndarray:
    """Numbers, or lists of one shape, as an array: int64, or float32 if one of them is a float, as torch has it."""
    found = numpy.asarray(rows, dtype=dtype)
    return found.astype({"i": numpy.int64, "f": numpy.float32}.get(found.dtype.kind, found.dtype), copy=False)
