"""Networks for tables: linear model, MLP, and FT-Transformer, with their common base.

All take the same batch (numbers, a mask of missing numbers, categories) and give logits of shape (B, num_labels).
"""

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import SequenceClassifierOutput


class TableConfig(PreTrainedConfig):
    """The columns of a model for tables.

    Args:
        num_numbers: number of number columns. Each has a second input, 1 for a missing value.
        category_sizes: number of distinct values of each category column, without code 0 for missing or unseen.
        bin_edges: for each number column, the ascending edges of the bins of its piecewise-linear encoding; None for
            plain numbers.
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
        """The number of bins of each number column; empty without bins."""
        return [len(edges) - 1 for edges in self.bin_edges or []]


class PiecewiseLinear(nn.Module):
    """Piecewise-linear encoding of numbers (Gorishniy et al. 2022, https://arxiv.org/abs/2203.05556).

    A linear layer on top is a piecewise-linear function of the number with a kink at every edge, for which an MLP would
    need many hidden units. It is a part of the model and not of its input, so that an exported program takes the same
    numbers with and without it.
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
        """Write the edges into the buffers. transformers calls this for weights that a loaded file does not have."""
        ends = [torch.tensor(column, dtype=torch.float32) for column in self.edges]
        self.column.copy_(torch.tensor([n for n, column in enumerate(ends) for _ in column[1:]]))
        self.lower.copy_(torch.cat([column[:-1] for column in ends]))
        self.width.copy_(torch.cat([column.diff() for column in ends]))

    def forward(self, numbers: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """The share of each bin below the number, column by column: (B, bins) in [0, 1], 0 if the number is missing.

        Beyond the last edge all bins are 1. The paper lets the outer bins grow without limit; then a single number far
        beyond those of training would decide the answer.

        Args:
            numbers: (B, N).
            missing: (B, N), 1 for a missing number.
        """
        shares = ((numbers[:, self.column] - self.lower) / self.width).clamp(0, 1)
        return shares * (1 - missing[:, self.column])


class TableModel(PreTrainedModel):
    """Base of the models for tables. A subclass computes `logits` from numbers and categories."""

    reads_ids: ClassVar[bool] = False
    """Whether categories are the fields of ids that `ClickConfig` describes."""

    def __init__(self, config: TableConfig, widths: list[int] | None) -> None:
        """`widths`: embedding size of each category column; None for a model without embeddings and bins."""
        super().__init__(config)
        if hasattr(config, "field_sizes") and not self.reads_ids:
            raise ValueError(f"{config.model_type} reads no ids and lists, and is for task=tabular")
        if self.reads_ids and config.category_sizes:
            raise ValueError(f"{config.model_type} reads ids, and is for task=ctr")
        if widths is not None:
            self.embeddings = nn.ModuleList(
                nn.Embedding(size + 1, width) for size, width in zip(config.category_sizes, widths, strict=True)
            )
            if config.bin_edges:
                self.bins = PiecewiseLinear(config.bin_edges)

    def binned(self, numbers: torch.Tensor, missing: torch.Tensor) -> list[torch.Tensor]:
        """The piecewise-linear encoding (B, bins) as a list of one; an empty list without bins, for torch.cat."""
        return [self.bins(numbers, missing)] if self.config.bin_edges else []

    def embedded(self, categories: torch.Tensor) -> list[torch.Tensor]:
        """The embedding (B, width) of each category column; `categories` is (B, C)."""
        return [embed(categories[:, column]) for column, embed in enumerate(self.embeddings)]

    def logits(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_labels); arguments as for `forward`."""
        raise NotImplementedError

    def forward(
        self,
        numbers: torch.Tensor,
        missing: torch.Tensor,
        categories: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits and loss.

        Args:
            numbers: (B, N) float, scaled; 0 for missing ones.
            missing: (B, N) float, 1 for a missing number.
            categories: (B, C) long, 0 for missing or unseen values.
            labels: (B,) long; for regression (B,) float; for multi-label (B, num_labels) float.

        Returns:
            logits (B, num_labels), and with `labels` their mean loss by `config.problem_type`: cross entropy, squared
            error, or binary cross entropy of each label.
        """
        logits = self.logits(numbers, missing, categories)
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class LinearConfig(TableConfig):
    """A linear model has no sizes besides those of its columns."""

    model_type = "linear"

    # transformers gives a config class without __init__ a generated one, which does not call that of its parent.
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class LinearForClassification(TableModel):
    """One weight per label for each number, missing mark, bin, and category value, and a bias per label."""

    config_class = LinearConfig

    def __init__(self, config: LinearConfig) -> None:
        # An embedding of num_labels dimensions equals a one-hot vector times a weight matrix.
        super().__init__(config, [config.num_labels] * len(config.category_sizes))
        self.classifier = nn.Linear(2 * config.num_numbers + sum(config.bin_sizes), config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Zeros: the loss is convex, so every start leads to the same minimum."""
        for parameter in module.parameters(recurse=False):
            nn.init.zeros_(parameter)
        if isinstance(module, PiecewiseLinear):
            module.reset_parameters()

    def logits(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classifier(torch.cat([numbers, missing, *self.binned(numbers, missing)], dim=1))
        return sum(self.embedded(categories), scores)


class MLPConfig(TableConfig):
    """Sizes of an MLP.

    Args:
        hidden_sizes: sizes of the hidden layers.
        embedding_size: maximum size of a category's embedding.
        dropout: dropout probability after each hidden layer.
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
    """Hidden layers with ReLU over numbers, their bins, and category embeddings, then a linear layer."""

    config_class = MLPConfig
    base_model_prefix = "layers"

    def __init__(self, config: MLPConfig) -> None:
        # Half the number of values, up to embedding_size: a rule of thumb that fits small tables.
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
        """He et al. 2015 for layers before a ReLU; zeros for the head, so that training starts from equal logits."""
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


class FTTransformerConfig(TableConfig):
    """Sizes of an FT-Transformer; the defaults are the paper's.

    Args:
        hidden_size: width of a token, a multiple of `num_attention_heads`.
        num_hidden_layers: blocks of attention and feed-forward.
        num_attention_heads: attention heads.
        feed_forward: width inside the feed-forward, as a multiple of `hidden_size`.
        attention_dropout: dropout probability of attention weights.
        feed_forward_dropout: dropout probability inside the feed-forward.
        residual_dropout: dropout probability of what a block adds.
    """

    model_type = "ft_transformer"

    def __init__(
        self,
        hidden_size: int = 192,
        num_hidden_layers: int = 3,
        num_attention_heads: int = 8,
        feed_forward: float = 4 / 3,
        attention_dropout: float = 0.2,
        feed_forward_dropout: float = 0.1,
        residual_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.feed_forward = feed_forward
        self.attention_dropout = attention_dropout
        self.feed_forward_dropout = feed_forward_dropout
        self.residual_dropout = residual_dropout
        super().__init__(**kwargs)


class Attention(nn.Module):
    """Multi-head self-attention without a mask."""

    def __init__(self, config: FTTransformerConfig) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        if width % heads:
            raise ValueError(f"hidden_size={width} is not a multiple of num_attention_heads={heads}")
        self.heads, self.dropout = heads, config.attention_dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Attention of `queries` (B, Q, width) to `tokens` (B, T, width): (B, Q, width), softmax(QK'/sqrt(d))V W."""
        query, key, value = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, tokens, d)
            for projected in (self.query(queries), self.key(tokens), self.value(tokens))
        )
        dropout = self.dropout if self.training else 0.0
        seen = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        output: torch.Tensor = self.output(seen.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """ReGLU (Shazeer 2020): one half of the inner values, after a ReLU, gates the other half."""

    def __init__(self, config: FTTransformerConfig) -> None:
        super().__init__()
        inner = int(config.hidden_size * config.feed_forward)
        self.inner = nn.Linear(config.hidden_size, 2 * inner)
        self.dropout = nn.Dropout(config.feed_forward_dropout)
        self.output = nn.Linear(inner, config.hidden_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """For each token by itself: (..., hidden_size) to (..., hidden_size)."""
        values, gates = self.inner(tokens).chunk(2, dim=-1)
        output: torch.Tensor = self.output(self.dropout(values * gates.relu()))
        return output


class Block(nn.Module):
    """A pre-norm transformer block: attention and feed-forward, each after a layer norm and with a residual."""

    def __init__(self, config: FTTransformerConfig, first: bool) -> None:
        super().__init__()
        # The paper trains better without the norm before the first attention.
        self.attention_norm = nn.Identity() if first else nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.residual_dropout)

    def forward(self, tokens: torch.Tensor, last: bool) -> torch.Tensor:
        """Tokens (B, T, hidden_size); after the `last` block (B, 1, hidden_size), for [CLS], which the head reads."""
        normed = self.attention_norm(tokens)
        read = slice(1 if last else None)  # the other outputs of the last block would be computed for nothing
        tokens = tokens[:, read] + self.dropout(self.attention(normed[:, read], normed))
        return tokens + self.dropout(self.feed_forward(self.feed_forward_norm(tokens)))


class FTTransformerForClassification(TableModel):
    """A token for each column and a [CLS] token, a transformer over them, and a head on [CLS]."""

    config_class = FTTransformerConfig

    def __init__(self, config: FTTransformerConfig) -> None:
        super().__init__(config, [config.hidden_size] * len(config.category_sizes))
        columns = config.num_numbers + len(config.category_sizes)
        # The token of a column is its bias plus, for a number, the number times a vector, or another vector if missing;
        # for a category, its embedding.
        self.number_vectors = nn.Parameter(torch.empty(config.num_numbers, config.hidden_size))
        self.missing_vectors = nn.Parameter(torch.empty(config.num_numbers, config.hidden_size))
        self.column_biases = nn.Parameter(torch.empty(columns, config.hidden_size))
        self.cls = nn.Parameter(torch.empty(config.hidden_size))
        if config.bin_edges:  # plus a vector for each bin, times its share
            self.bin_vectors = nn.Parameter(torch.empty(sum(config.bin_sizes), config.hidden_size))
        self.blocks = nn.ModuleList(Block(config, first=number == 0) for number in range(config.num_hidden_layers))
        self.head_norm = nn.LayerNorm(config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Uniform in ±1/sqrt(hidden_size) for tokens, as in the paper; Glorot and Bengio 2010 for linear layers."""
        bound = self.config.hidden_size**-0.5
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, PiecewiseLinear):
            module.reset_parameters()
        else:
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bin_vectors":
                    nn.init.zeros_(parameter)  # at first, tokens are the same as without bins
                else:
                    nn.init.uniform_(parameter, -bound, bound)

    def tokens(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """The tokens (B, 1 + N + C, hidden_size) of rows, [CLS] first; arguments as for `forward`."""
        vectors = numbers[..., None] * self.number_vectors + missing[..., None] * self.missing_vectors
        for shares in self.binned(numbers, missing):
            sizes = self.config.bin_sizes
            pairs = zip(shares.split(sizes, dim=1), self.bin_vectors.split(sizes), strict=True)
            vectors = vectors + torch.stack([share @ weights for share, weights in pairs], dim=1)
        columns = torch.cat([vectors, *(vector[:, None] for vector in self.embedded(categories))], dim=1)
        return torch.cat([self.cls.expand(numbers.shape[0], 1, -1), columns + self.column_biases], dim=1)

    def logits(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        tokens = self.tokens(numbers, missing, categories)
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens, last=number == len(self.blocks))
        scores: torch.Tensor = self.classifier(self.head_norm(tokens[:, 0]).relu())
        return scores
