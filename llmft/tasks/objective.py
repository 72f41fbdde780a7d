"""What training minimizes: from features to a batch, and from a batch to its loss and its outputs."""

from typing import Any, ClassVar, Literal, final

import torch

from llmft.metrics.calibration import perplexity
from llmft.schema.tasks import IGNORED

Batch = dict[str, torch.Tensor]


class Objective:
    """The model's own loss, for a task of one feature a row. A task names another class as its `objective_class`."""

    mean_over: ClassVar[Literal["rows", "words", "tokens", "boxes"]] = "rows"
    """What the loss of a batch is a mean over: its rows, or what has a label. That of tokens is a perplexity, too."""
    side: ClassVar[Literal["left", "right"] | None] = None
    """Where padding stands. None: where a model that classifies texts has it, see Tokenizer.padding_side."""
    own_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of a batch that the objective reads itself, and no model takes."""
    augments: ClassVar[bool] = False
    """Whether `collate` takes the section `augment` as `augment`, and reads `draw`, an int64 of each training row that
    depends on (seed, epoch, row) alone."""
    of_encoder: ClassVar[tuple[str, ...]] = ()
    """Keys of bytes that only the encoder reads, such as pixels. `collate` does without them where its outputs are
    kept."""
    dtypes: ClassVar[dict[str, torch.dtype]] = {}
    """Types of tensors by key, where the values do not tell, such as those of an empty list."""

    def __init__(self, task: Any) -> None:
        """`task`: the Task that has learned from the training rows."""
        self.task = task

    def collate(self, features: list[dict[str, Any]]) -> Batch:
        """A batch of features: tokens and their labels are padded, everything else is stacked.

        Returns:
            tensors (B, longest of the key) or (B, ...) by key, and of tokens an `attention_mask`.
        """
        if "input_ids" in features[0]:
            return pad(features, *self._padding)
        return {
            key: torch.tensor([feature[key] for feature in features], dtype=self.dtypes.get(key)) for key in features[0]
        }

    @property
    def _padding(self) -> tuple[dict[str, int], str]:
        tokenizer = self.task.state.tokenizer
        return pad_values(tokenizer), self.side or tokenizer.padding_side

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The mean loss of a batch. Default: the model's own."""
        loss: torch.Tensor = model(**batch).loss
        return loss

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[Any, float | None]:
        """The outputs of a batch, a numpy array for each feature, and the mean loss if there are labels.

        Default: a forward pass, of which the outputs are the logits.
        """
        output = model(**batch)
        return output.logits.float().cpu().numpy(), None if output.loss is None else output.loss.item()

    @final
    def loss_weight(self, batch: Batch) -> int:
        """How many things the loss of a batch is a mean over.

        Batches of one step, and of an evaluation, weigh as much as they hold of it.
        """
        if self.mean_over == "rows" or "labels" not in batch:
            return len(next(iter(batch.values())))
        return int((batch["labels"] != IGNORED).sum())

    @final
    def metrics_from_loss(self, loss: float) -> dict[str, float]:
        """The metrics that a mean loss gives."""
        return {"loss": loss} | ({"perplexity": perplexity(loss)} if self.mean_over == "tokens" else {})


def pad_values(tokenizer: Any) -> dict[str, int]:
    """The padding of each key that holds a number a token."""
    return {
        "input_ids": tokenizer.pad_token_id,
        "token_type_ids": tokenizer.pad_token_type_id,
        "labels": IGNORED,
    }


def pad(features: list[dict[str, Any]], values: dict[str, int], side: str = "right") -> Batch:
    """Pad each key no wider than its longest row, and add the attention mask.

    [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}], padded by 0 on the right, become `input_ids` [[5, 6, 7], [8, 0, 0]]
    and `attention_mask` [[1, 1, 1], [1, 0, 0]].

    Args:
        values: the padding of each sequence key, such as {"input_ids": 0}; other keys, and numbers, are stacked.

    Returns:
        tensors (B, longest of the key), or (B,) for numbers, and `attention_mask`, which is as wide as `input_ids`.
    """
    batch: Batch = {}
    for key in features[0]:
        rows = [feature[key] for feature in features]
        sequences = key in values and isinstance(rows[0], list)
        batch[key] = _padded(rows, values[key], side) if sequences else torch.tensor(rows)
    batch["attention_mask"] = _padded([[1] * len(feature["input_ids"]) for feature in features], 0, side)
    return batch


def _padded(rows: list[list[Any]], value: int, side: str) -> torch.Tensor:
    width = max(map(len, rows))
    padding = ([value] * (width - len(row)) for row in rows)
    pairs = zip(rows, padding, strict=True)
    return torch.tensor([more + row if side == "left" else row + more for row, more in pairs])
