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
        bin_edges: of each number column, where the bins of its piecewise-linear encoding meet, in ascending order;
            None for numbers as they are.
    """

    def __init__(
        self,
        num_numbers: int = 1,
        category_sizes: list[int] | None = None,
        bin_edges: list[list[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.num_numbers = num_numbers
        self.category_sizes = category_sizes or []
        self.bin_edges = bin_edges
        super().__init__(**kwargs)

    @property
    def bin_sizes(self) -> list[int]:
        """Bins of each number column; empty without bins."""
        return [len(edges) - 1 for edges in self.bin_edges or []]


class PiecewiseLinear(nn.Module):
    """Piecewise-linear encoding of numbers (Gorishniy et al. 2022, https://arxiv.org/abs/2203.05556).

    A layer of weights over its values is a line with a kink at every edge, so that a network can follow steps which it
    would need many hidden values for. The encoding is a part of the model, not of its input: an exported program takes
    the same numbers with it and without.
    """

    column: torch.Tensor
    lower: torch.Tensor
    width: torch.Tensor

    def __init__(self, edges: list[list[float]]) -> None:
        super().__init__()
        self.edges = edges
        bins = sum(len(column) - 1 for column in edges)
        self.register_buffer("column", torch.empty(bins, dtype=torch.long))
        self.register_buffer("lower", torch.empty(bins))
        self.register_buffer("width", torch.empty(bins))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Write the edges into the buffers: transformers calls it where weights that it has loaded lack them."""
        ends = [torch.tensor(column, dtype=torch.float32) for column in self.edges]
        self.column.copy_(torch.tensor([n for n, column in enumerate(ends) for _ in column[1:]]))
        self.lower.copy_(torch.cat([column[:-1] for column in ends]))
        self.width.copy_(torch.cat([column.diff() for column in ends]))

    def forward(self, numbers: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """Of each bin, column by column, the share that lies below the number: (B, bins), zeros where it is missing.

        Past the last edge all bins are full. The paper lets the outermost ones go on; then one number of a row far
        beyond those of training would decide the answer.
        """
        shares = ((numbers[:, self.column] - self.lower) / self.width).clamp(0, 1)
        return shares * (1 - missing[:, self.column])


class TableModel(PreTrainedModel):
    """A model for rows of a table. A kind of it says in `logits` how scores come from numbers and categories."""

    def __init__(self, config: TableConfig, widths: list[int] | None) -> None:
        """`widths`: of the embedding of each category column; None for a model that embeds nothing, and has no bins."""
        super().__init__(config)
        if widths is not None:
            self.embeddings = nn.ModuleList(
                nn.Embedding(size + 1, width) for size, width in zip(config.category_sizes, widths, strict=True)
            )
            if config.bin_edges:
                self.bins = PiecewiseLinear(config.bin_edges)

    def binned(self, numbers: torch.Tensor, missing: torch.Tensor) -> list[torch.Tensor]:
        """What each bin of all number columns says (B, bins), in a list; an empty one without bins."""
        return [self.bins(numbers, missing)] if self.config.bin_edges else []

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
