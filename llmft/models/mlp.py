"""A multilayer perceptron for tables: number columns as they are, category columns embedded."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import SequenceClassifierOutput


class MLPConfig(PreTrainedConfig):
    """Sizes of an MLP.

    Args:
        num_numbers: number columns; each has a second input that marks a missing value.
        category_sizes: distinct values of each category column; 0 stands for missing or unseen.
        hidden_sizes: widths of the hidden layers.
        embedding_size: width of a category's embedding, at most.
        dropout: share of hidden values that are dropped in training.
    """

    model_type = "mlp"

    def __init__(
        self,
        num_numbers: int = 1,
        category_sizes: list[int] | None = None,
        hidden_sizes: list[int] | None = None,
        embedding_size: int = 16,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self.num_numbers = num_numbers
        self.category_sizes = category_sizes or []
        self.hidden_sizes = hidden_sizes or [128, 64]
        self.embedding_size = embedding_size
        self.dropout = dropout
        super().__init__(**kwargs)


class MLPForClassification(PreTrainedModel):
    """Hidden layers with ReLU over standardised numbers and embedded categories, then an output a label or a number."""

    config_class = MLPConfig
    base_model_prefix = "layers"

    def __init__(self, config: MLPConfig) -> None:
        super().__init__(config)
        # Half the number of values, as wide as embedding_size at most: a rule of thumb that fits small tables.
        widths = [min(config.embedding_size, (size + 2) // 2) for size in config.category_sizes]
        self.embeddings = nn.ModuleList(
            nn.Embedding(size + 1, width) for size, width in zip(config.category_sizes, widths, strict=True)
        )
        sizes = [2 * config.num_numbers + sum(widths), *config.hidden_sizes]
        self.layers = nn.Sequential(
            *(
                part
                for width, following in pairwise(sizes)
                for part in (nn.Linear(width, following), nn.ReLU(), nn.Dropout(config.dropout))
            )
        )
        self.classifier = nn.Linear(sizes[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """He et al. 2015 for layers before a ReLU; small embeddings. Without this, transformers leaves torch's own."""
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)

    def forward(
        self,
        numbers: torch.Tensor,
        missing: torch.Tensor,
        categories: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Scores of each label.

        Args:
            numbers: (B, N) float, standardised; missing ones are 0.
            missing: (B, N) float, 1 where a number is missing.
            categories: (B, C) long, 0 where missing or unseen.
            labels: (B,) long, or float of shape (B,) for regression and (B, num_labels) for several labels a row.

        Returns:
            logits (B, num_labels), and with `labels` the mean loss of `config.problem_type`: cross entropy, binary
            cross entropy or squared error.
        """
        embedded = [embed(categories[:, column]) for column, embed in enumerate(self.embeddings)]
        logits = self.classifier(self.layers(torch.cat([numbers, missing, *embedded], dim=1)))
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def register() -> None:
    """Make `AutoConfig` and `AutoModelForSequenceClassification` know the MLP; calling it again changes nothing."""
    AutoConfig.register(MLPConfig.model_type, MLPConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(MLPConfig, MLPForClassification, exist_ok=True)
