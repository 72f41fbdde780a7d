"""FT-Transformer for tables (Gorishniy et al. 2021, https://arxiv.org/abs/2106.11959): each column is a token."""

from typing import Any

import torch
from torch import nn

from llmft.models.table import PiecewiseLinear, TableConfig, TableModel


class FTTransformerConfig(TableConfig):
    """Sizes of an FT-Transformer; the defaults are the paper's.

    Args:
        hidden_size: width of a token, a multiple of `num_attention_heads`.
        num_hidden_layers: blocks of attention and feed-forward.
        num_attention_heads: attention heads.
        feed_forward: width inside the feed-forward, as a multiple of `hidden_size`.
        attention_dropout: share of attention weights that are dropped in training.
        feed_forward_dropout: share of values inside the feed-forward that are.
        residual_dropout: share of what a block adds that is.
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
    """Every token looks at every token, in several heads."""

    def __init__(self, config: FTTransformerConfig) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        if width % heads:
            raise ValueError(f"hidden_size={width} is no multiple of num_attention_heads={heads}")
        self.heads, self.dropout = heads, config.attention_dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What `queries` (B, Q, width) see of `tokens` (B, T, width): softmax(QK'/sqrt(d))V, and a linear layer."""
        query, key, value = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, tokens, d)
            for projected in (self.query(queries), self.key(tokens), self.value(tokens))
        )
        dropout = self.dropout if self.training else 0.0
        seen = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        output: torch.Tensor = self.output(seen.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """ReGLU (Shazeer 2020): one half of the inner values, through a ReLU, is the gate of the other."""

    def __init__(self, config: FTTransformerConfig) -> None:
        super().__init__()
        inner = int(config.hidden_size * config.feed_forward)
        self.inner = nn.Linear(config.hidden_size, 2 * inner)
        self.dropout = nn.Dropout(config.feed_forward_dropout)
        self.output = nn.Linear(inner, config.hidden_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Of each token (..., hidden_size) by itself."""
        values, gates = self.inner(tokens).chunk(2, dim=-1)
        output: torch.Tensor = self.output(self.dropout(values * gates.relu()))
        return output


class Block(nn.Module):
    """Attention and feed-forward, each added to what it reads of, after a layer norm."""

    def __init__(self, config: FTTransformerConfig, first: bool) -> None:
        super().__init__()
        # The paper trains better without the norm before the first attention.
        self.attention_norm = nn.Identity() if first else nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.residual_dropout)

    def forward(self, tokens: torch.Tensor, last: bool) -> torch.Tensor:
        """Tokens (B, T, hidden_size); after the `last` block only the first of them, which the head reads."""
        normed = self.attention_norm(tokens)
        read = slice(1 if last else None)
        tokens = tokens[:, read] + self.dropout(self.attention(normed[:, read], normed))
        return tokens + self.dropout(self.feed_forward(self.feed_forward_norm(tokens)))


class FTTransformerForClassification(TableModel):
    """A token a column and one of its own, a transformer over them, and a head that reads the latter."""

    config_class = FTTransformerConfig

    def __init__(self, config: FTTransformerConfig) -> None:
        super().__init__(config, [config.hidden_size] * len(config.category_sizes))
        columns = config.num_numbers + len(config.category_sizes)
        # A column's token is its bias and, of a number, the number times a vector, or a vector of its own if missing.
        self.number_vectors = nn.Parameter(torch.empty(config.num_numbers, config.hidden_size))
        self.missing_vectors = nn.Parameter(torch.empty(config.num_numbers, config.hidden_size))
        self.column_biases = nn.Parameter(torch.empty(columns, config.hidden_size))
        self.cls = nn.Parameter(torch.empty(config.hidden_size))
        if config.bin_edges:  # and a vector for each bin, times its share
            self.bin_vectors = nn.Parameter(torch.empty(sum(config.bin_sizes), config.hidden_size))
        self.blocks = nn.ModuleList(Block(config, first=number == 0) for number in range(config.num_hidden_layers))
        self.head_norm = nn.LayerNorm(config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Uniform up to 1/sqrt(hidden_size) for tokens, as in the paper; Glorot and Bengio 2010 for layers."""
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
                    nn.init.zeros_(parameter)  # tokens begin as they would without bins
                else:
                    nn.init.uniform_(parameter, -bound, bound)

    def tokens(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """The tokens (B, 1 + N + C, hidden_size) of some rows, [CLS] first; the arguments are those of `forward`."""
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
