"""From features of unequal length to one tensor a key, no wider than its longest of the batch."""

from typing import Any, Self

import torch


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
