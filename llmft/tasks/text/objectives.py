"""What training minimizes for tasks that answer with parts of a text: words with tags, and spans."""

from typing import Any

import numpy
import torch
from torch.nn import functional

from llmft.schema.tasks import IGNORED
from llmft.tasks.objective import Batch, Objective
from llmft.tasks.text.question_answering import LABELS


class WordObjective(Objective):
    """The mean over words of the cross entropy of their tags; 0 for a batch without any."""

    mean_over = "words"

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

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[list[numpy.ndarray], float | None]:
        """The logits of each feature, (tokens, tags) without padding, and the mean loss if there are labels."""
        output = model(**{key: value for key, value in batch.items() if key != "labels"})
        logits = self.found(output, batch)
        return self.rows(logits, batch), self._loss(logits, batch).item() if "labels" in batch else None


class SpanObjective(Objective):
    """The mean cross entropy of the first and the last token of an answer; padding can be neither."""

    own_keys = LABELS

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return self._loss(self._logits(model, batch), batch)

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[list[numpy.ndarray], float | None]:
        """The logits of each window, (2, tokens) in float32, and the loss."""
        logits = self._logits(model, batch)
        return self.rows(logits, batch), self._loss(logits, batch).item() if LABELS[0] in batch else None

    def read(self, output: Any, batch: Batch) -> torch.Tensor:
        """(B, 2, T), for the first and the last token of an answer."""
        return torch.stack([output.start_logits, output.end_logits], dim=1).float()

    def _logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        # Without labels: the model's own loss lets padding be the answer.
        return self.found(model(**{key: value for key, value in batch.items() if key not in LABELS}), batch)

    def _loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        # (B, 2, T) as 2 B classifications over T positions.
        masked = logits.masked_fill(batch["attention_mask"][:, None, :] == 0, -torch.inf)
        places = torch.stack([batch[name] for name in LABELS], dim=1)
        return functional.cross_entropy(masked.flatten(0, 1), places.flatten())
