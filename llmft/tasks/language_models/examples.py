"""Examples of token sequences as one batch, quickly where all are of one length."""

from typing import Any, Literal

import numpy
import torch

from llmft.models.labelled import IGNORED


class Examples:
    """A collator: pads each key with its own value. There is an attention mask where something is padded."""

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
