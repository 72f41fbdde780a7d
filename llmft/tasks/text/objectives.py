"""What training minimizes for tasks that answer with parts of a text: words with tags, and spans."""

import torch
from torch.nn import functional

from llmft.schema.tasks import IGNORED
from llmft.tasks.objective import Batch, Objective
from llmft.tasks.text.question_answering import LABELS


class WordObjective(Objective):
    """The mean over words of the cross entropy of their tags; 0 for a batch without any."""

    mean_over = "words"
    side = "right"  # for any model: positions count from the first token

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return self._loss(model(**inputs).logits, batch)

    def _loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        total = functional.cross_entropy(
            logits.float().flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED, reduction="sum"
        )
        # Summed and divided here: the mean of torch over no words is NaN, and a sentence of invisible characters has
        # no word after tokenization.
        return total / max(self.loss_weight(batch), 1)

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[list[object], float | None]:
        """The logits of each feature, (tokens, tags) without padding, and the mean loss if there are labels."""
        logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits.float()
        loss = self._loss(logits, batch).item() if "labels" in batch else None
        mask = batch["attention_mask"].bool()
        # Without padding, whose logits would be most of the memory: outputs of a whole split are held at once.
        return [row[kept].cpu().numpy() for row, kept in zip(logits, mask, strict=True)], loss


class SpanObjective(Objective):
    """The mean cross entropy of the first and the last token of an answer; padding can be neither."""

    side = "right"  # for any model: labels and windows count tokens from the left

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return self._loss(self._logits(model, batch), batch)

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[list[object], float | None]:
        """The logits of each window, (2, tokens) in float32, and the loss."""
        logits = self._logits(model, batch)
        loss = self._loss(logits, batch).item() if LABELS[0] in batch else None
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        arrays = logits.cpu().numpy()
        return [array[:, :length].copy() for array, length in zip(arrays, lengths, strict=True)], loss

    def _logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """(B, 2, T), for the first and the last token of an answer."""
        # Without labels: the model's own loss lets padding be the answer.
        output = model(**{key: value for key, value in batch.items() if key not in LABELS})
        return torch.stack([output.start_logits, output.end_logits], dim=1).float()

    def _loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        # (B, 2, T) as 2 B classifications over T positions.
        masked = logits.masked_fill(batch["attention_mask"][:, None, :] == 0, -torch.inf)
        places = torch.stack([batch[name] for name in LABELS], dim=1)
        return functional.cross_entropy(masked.flatten(0, 1), places.flatten())
