"""What the models for tables have in common: their inputs, the embeddings of categories, the loss."""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import SequenceClassifierOutput


class TableConfig(PreTrainedConfig):
    """What a model for tables must know of the columns.

    Args:
        num_numbers: number columns; each has a second input that marks a missing value.
        category_sizes: distinct values of each category column; 0 stands for missing or unseen.
    """

    def __init__(self, num_numbers: int = 1, category_sizes: list[int] | None = None, **kwargs: Any) -> None:
        self.num_numbers = num_numbers
        self.category_sizes = category_sizes or []
        super().__init__(**kwargs)


class TableModel(PreTrainedModel):
    """A model for rows of a table. A kind of it says in `logits` how scores come from numbers and categories."""

    def __init__(self, config: TableConfig, widths: list[int] | None) -> None:
        """`widths`: of the embedding of each category column; None for a model that embeds nothing."""
        super().__init__(config)
        if widths is not None:
            self.embeddings = nn.ModuleList(
                nn.Embedding(size + 1, width) for size, width in zip(config.category_sizes, widths, strict=True)
            )

    def embedded(self, categories: torch.Tensor) -> list[torch.Tensor]:
        """The embedding (B, width) of each category column; `categories` is (B, C)."""
        return [embed(categories[:, column]) for column, embed in enumerate(self.embeddings)]

    def logits(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Scores (B, num_labels); the arguments are those of `forward`."""
        raise NotImplementedError

    def forward(
        self,
        numbers: torch.Tensor,
        missing: torch.Tensor,
        categories: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Scores of each label.

        Args:
            numbers: (B, N) float, on one scale; missing ones are 0.
            missing: (B, N) float, 1 where a number is missing.
            categories: (B, C) long, 0 where missing or unseen.
            labels: (B,) long; (B,) float for regression, (B, num_labels) float for several labels a row.

        Returns:
            logits (B, num_labels), and with `labels` their mean loss by `config.problem_type`: cross entropy, squared
            error, or binary cross entropy of each label.
        """
        logits = self.logits(numbers, missing, categories)
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def register(config: type[TableConfig], model: type[TableModel]) -> None:
    """Make `AutoConfig` and `AutoModelForSequenceClassification` know a model; calling it again changes nothing."""
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModelForSequenceClassification.register(config, model, exist_ok=True)
