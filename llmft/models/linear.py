"""Linear models for tables: logistic regression where labels are classes, linear regression where they are numbers."""

from typing import Any

import torch
from torch import nn

from llmft.models.table import PiecewiseLinear, TableConfig, TableModel


class LinearConfig(TableConfig):
    """A linear model has no sizes of its own."""

    model_type = "linear"

    # A configuration without an __init__ of its own gets one from transformers, which does not call that of its parent.
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class LinearForClassification(TableModel):
    """One weight for each number, mark of a missing one, bin and value of a category, and a label's bias."""

    config_class = LinearConfig

    def __init__(self, config: LinearConfig) -> None:
        # To embed a category in as many numbers as there are labels is to multiply a one-hot vector by weights.
        super().__init__(config, [config.num_labels] * len(config.category_sizes))
        self.classifier = nn.Linear(2 * config.num_numbers + sum(config.bin_sizes), config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Zeros: the loss has one lowest point, and every start leads there."""
        for parameter in module.parameters(recurse=False):
            nn.init.zeros_(parameter)
        if isinstance(module, PiecewiseLinear):
            module.reset_parameters()

    def logits(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classifier(torch.cat([numbers, missing, *self.binned(numbers, missing)], dim=1))
        return sum(self.embedded(categories), scores)
