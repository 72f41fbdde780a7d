"""From features of unequal length to one tensor a key: padded no wider than the longest of the batch."""

from typing import Any, Literal, Self

import numpy
import torch

from llmft.models.labelled import IGNORED


class Padding:
    """A collator for token sequences: pads each key with its own value and adds the attention mask.

    [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}], padded by 0 on the right, become `input_ids` [[5, 6, 7], [8, 0, 0]]
    and `attention_mask` [[1, 1, 1], [1, 0, 0]].
    """

    def __init__(self, values: dict[str, int], side: str = "right") -> None:
        """`values`: the padding of each sequence key, such as {"input_ids": 0}; other keys are stacked as they are."""
        self.values = values
        self.side = side

    @classmethod
    def by(cls, tokenizer: Any, side: str = "right", **values: int) -> Self:
        """Padding of what a tokenizer makes, with its own padding tokens; `values` are those of further keys."""
        own = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        return cls(own | values, side)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors of shape (B, longest of the key) for sequence keys and (B,) for numbers, and `attention_mask`, which
        is as wide as `input_ids`."""
        batch: dict[str, torch.Tensor] = {}
        for key in features[0]:
            rows = [feature[key] for feature in features]
            if key in self.values:
                pad, width = [self.values[key]], max(map(len, rows))
                batch[key] = torch.tensor([self._padded(row, pad * (width - len(row))) for row in rows])
            else:
                batch[key] = torch.tensor(rows)
        lengths = [len(feature["input_ids"]) for feature in features]
        width = max(lengths)
        batch["attention_mask"] = torch.tensor([self._padded([1] * n, [0] * (width - n)) for n in lengths])
        return batch

    def _padded(self, row: list[int], padding: list[int]) -> list[int]:
        return padding + row if self.side == "left" else row + padding


class Examples:
    """The collator of language models: quick where all rows are of one length, as blocks are.

    There is an attention mask only where something is padded.
    """

    def __init__(self, pad: int, side: Literal["left", "right"] = "right") -> None:
        """`pad`: the token that fills `input_ids`."""
        self.values = {"input_ids": pad, "labels": IGNORED, "token_type_ids": 0}
        self.side = side

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors of shape (B, longest of the key), or (B,) for numbers; examples without labels always get a mask."""
        batch = {}
        for key in examples[0]:
            rows = [example[key] for example in examples]
            sequences = key in self.values
            batch[key] = self._padded(rows, self.values[key]) if sequences else torch.tensor(rows)
        lengths = [len(example["input_ids"]) for example in examples]
        if "labels" not in batch or min(lengths) < max(lengths):
            batch["attention_mask"] = self._padded([numpy.ones(length, dtype=numpy.int64) for length in lengths], 0)
        return batch

    def _padded(self, rows: list[Any], value: int) -> torch.Tensor:
        width = max(map(len, rows))
        padded = numpy.full((len(rows), width), value, dtype=numpy.int64)
        for line, row in zip(padded, rows, strict=True):
            place = slice(width - len(row), width) if self.side == "left" else slice(len(row))
            line[place] = row
        return torch.from_numpy(padded)
