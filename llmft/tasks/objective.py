"""What training minimizes: from features to a batch, and from a batch to its loss and its outputs."""

from typing import Any, ClassVar, Literal, final

import numpy
import torch

from llmft.metrics.calibration import perplexity
from llmft.schema.tasks import IGNORED
from llmft.tasks.padding import Arrays

Batch = dict[str, torch.Tensor]


class Objective:
    """The model's own loss, for a task of one feature a row. A task names another class as its `objective_class`."""

    mean_over: ClassVar[Literal["rows", "words", "tokens", "boxes"]] = "rows"
    """What the loss of a batch is a mean over: its rows, or what has a label. That of tokens is a perplexity, too."""
    own_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of a batch that the objective reads itself, and no model takes."""
    augments: ClassVar[bool] = False
    """Whether `collate` takes the section `augment` as `augment`, and reads `draw`, an int64 of each training row that
    depends on (seed, epoch, row) alone."""
    of_encoder: ClassVar[tuple[str, ...]] = ()
    """Keys of bytes that only the encoder reads, such as pixels. `collate` does without them where its outputs are
    kept."""

    def __init__(self, task: Any) -> None:
        """`task`: the Task that has learned from the training rows."""
        self.task = task

    def collate(self, features: list[dict[str, Any]]) -> Batch:
        """A batch of features. Default: what the task makes of them, see `Codec.collate`.

        Returns:
            tensors (B, longest of the key) or (B, ...) by key, and of tokens an `attention_mask`.
        """
        return tensors(self.task.collate(features))

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The mean loss of a batch. Default: the model's own."""
        loss: torch.Tensor = model(**batch).loss
        return loss

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[Any, float | None]:
        """The outputs of a batch, a numpy array for each feature, and the mean loss if there are labels.

        Default: a forward pass.
        """
        output = model(**batch)
        return self.rows(self.found(output, batch), batch), None if output.loss is None else output.loss.item()

    def read(self, output: Any, batch: Batch) -> torch.Tensor:
        """What `decode` takes of a model's output, (B, ...), padding included; an exported program computes it, too.

        Default: the logits.
        """
        logits: torch.Tensor = output.logits.float()
        return logits

    @final
    def found(self, output: Any, batch: Batch) -> torch.Tensor:
        """What `read` gives, or what an exported program has computed of it already."""
        computed: torch.Tensor | None = getattr(output, "outputs", None)
        return self.read(output, batch) if computed is None else computed

    @final
    def rows(self, found: torch.Tensor, batch: Batch) -> list[numpy.ndarray]:
        """What `found` gives, by feature and without padding."""
        lengths = batch["attention_mask"].sum(dim=1).tolist() if "attention_mask" in batch else None
        outputs: list[numpy.ndarray] = self.task.unpad(found.cpu().numpy(), lengths)
        return outputs

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


def tensors(arrays: Arrays) -> Batch:
    """The same numbers as tensors, which share the memory of the arrays."""
    return {name: torch.from_numpy(values) for name, values in arrays.items()}
