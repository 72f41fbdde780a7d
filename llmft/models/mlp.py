"""A multilayer perceptron for tables: number columns as they are, category columns embedded."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from llmft.models.table import PiecewiseLinear, TableConfig, TableModel


class MLPConfig(TableConfig):
    """Sizes of an MLP.

    Args:
        hidden_sizes: widths of the hidden layers.
        embedding_size: width of a category's embedding, at most.
        dropout: share of hidden values that are dropped in training.
    """

    model_type = "mlp"

    def __init__(
        self, hidden_sizes: list[int] | None = None, embedding_size: int = 16, dropout: float = 0.1, **kwargs: Any
    ) -> None:
        self.hidden_sizes = hidden_sizes or [128, 64]
        self.embedding_size = embedding_size
        self.dropout = dropout
        super().__init__(**kwargs)


class MLPForClassification(TableModel):
    """Hidden layers with ReLU over numbers, their bins and embedded categories, then an output a label or a number."""

    config_class = MLPConfig
    base_model_prefix = "layers"

    def __init__(self, config: MLPConfig) -> None:
        # Half the number of values, as wide as embedding_size at most: a rule of thumb that fits small tables.
        widths = [min(config.embedding_size, (size + 2) // 2) for size in config.category_sizes]
        super().__init__(config, widths)
        sizes = [2 * config.num_numbers + sum(config.bin_sizes) + sum(widths), *config.hidden_sizes]
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
            if module is self.classifier:
                nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
        elif isinstance(module, PiecewiseLinear):
            module.reset_parameters()

    def logits(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        inputs = torch.cat([numbers, missing, *self.binned(numbers, missing), *self.embedded(categories)], dim=1)
        scores: torch.Tensor = self.classifier(self.layers(inputs))
        return scores
