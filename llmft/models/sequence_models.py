"""Recommenders that read a history in order: SASRec and GRU4Rec. Each place of a window predicts the item after it."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from llmft.models.factor_models import RecommenderConfig, Scores
from llmft.schema.tasks import IGNORED


class SequenceConfig(RecommenderConfig):
    """Models of sequences of items.

    Args:
        hidden_size: the size of an item's vector, and of the state.
        num_hidden_layers: layers.
        hidden_dropout: dropout of inputs and layers.
        full_softmax: items up to which the loss is over all of them; beyond, over `negatives` drawn for each batch.
        negatives: items that are drawn.
        initializer_range: standard deviation of new weights.
    """

    def __init__(
        self,
        hidden_size: int = 64,
        num_hidden_layers: int = 2,
        hidden_dropout: float = 0.2,
        full_softmax: int = 5000,
        negatives: int = 512,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.hidden_dropout, self.initializer_range = hidden_dropout, initializer_range
        self.full_softmax, self.negatives = full_softmax, negatives
        super().__init__(**kwargs)


class SequenceModel(PreTrainedModel):
    """Base: the vectors of items are inputs and outputs. A subclass computes the states of a sequence."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__(config)
        self.items = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=0)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx] = 0.0
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def states(self, history: torch.Tensor) -> torch.Tensor:
        """The state after each place, (B, L, hidden_size)."""
        raise NotImplementedError

    def forward(
        self, history: torch.Tensor, user: torch.Tensor | None = None, labels: torch.Tensor | None = None
    ) -> Scores:
        """Scores of all items after the whole history, or with labels the loss at every place.

        Args:
            history: (B, L) int64 items, padded with 0 on the left.
            user: ignored: a history is all that is read.
            labels: (B, L), the item after each place, IGNORED where there is none.
        """
        states = self.states(history)
        if labels is None:
            return Scores(logits=functional.linear(states[:, -1], self.items.weight[1:]))
        there = labels != IGNORED
        return Scores(loss=self.loss_of(states[there], labels[there]))

    def loss_of(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross entropy over all items, or over drawn ones that the batch shares.

        Args:
            states: (n, hidden_size).
            targets: (n,) items.
        """
        if not len(targets):  # a batch of users with one item each
            return states.sum() * 0.0
        items, drawn = self.config.num_items, self.config.negatives
        if items <= max(self.config.full_softmax, drawn):
            return functional.cross_entropy(states @ self.items.weight[1:].T, targets - 1)
        others = torch.randint(1, items + 1, (drawn,), device=states.device)
        right = (states * self.items(targets)).sum(dim=1, keepdim=True)
        # Each drawn item stands for items / drawn of all (Jean et al. 2015); the right one does not count twice.
        wrong = states @ self.items(others).T + math.log(items / drawn)
        wrong = wrong.masked_fill(others == targets[:, None], -torch.inf)
        first = torch.zeros(len(targets), dtype=torch.long, device=states.device)
        return functional.cross_entropy(torch.cat([right, wrong], dim=1), first)


class SASRecConfig(SequenceConfig):
    """SASRec.

    Args:
        num_attention_heads: heads, which divide hidden_size.
    """

    model_type = "sasrec"

    def __init__(self, num_attention_heads: int = 2, **kwargs: Any) -> None:
        self.num_attention_heads = num_attention_heads
        super().__init__(**kwargs)
        if self.hidden_size % num_attention_heads:
            what = f"num_attention_heads must divide hidden_size={self.hidden_size}, got {num_attention_heads}"
            raise ValueError(what)


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each after a norm."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.norm_attention, self.norm_feedforward = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query_key_value, self.output = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, size), nn.Linear(size, size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The states (B, L, H) after the block; `mask` (B, 1, L, L) is true where a place is read."""
        batch, length, size = states.shape
        parts = self.query_key_value(self.norm_attention(states))
        query, key, value = parts.view(batch, length, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        states = states + self.dropout(self.output(read.transpose(1, 2).reshape(batch, length, size)))
        fed = self.down(self.dropout(functional.gelu(self.up(self.norm_feedforward(states)))))
        return states + self.dropout(fed)


class SASRec(SequenceModel):
    """Self-attentive sequential recommendation (Kang & McAuley 2018), with norms before the layers and a softmax over
    items instead of one drawn item."""

    config_class = SASRecConfig

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def states(self, history: torch.Tensor) -> torch.Tensor:
        length = history.shape[1]
        there = history != 0
        # Counted from the end, so that padding on the left moves nothing.
        places = torch.arange(length, device=history.device).flip(0)
        states = self.dropout(self.items(history) * self.config.hidden_size**0.5 + self.positions(places))
        below = torch.ones(length, length, dtype=torch.bool, device=history.device).tril()
        # Every place reads itself, padding too: a softmax over nothing would be NaN.
        itself = torch.eye(length, dtype=torch.bool, device=history.device)
        mask = ((below & there[:, None, :]) | itself)[:, None]
        for block in self.blocks:
            states = block(states, mask)
        return self.norm(states)


class GRU4RecConfig(SequenceConfig):
    """GRU4Rec; the options of `SequenceConfig`."""

    model_type = "gru4rec"

    def __init__(self, num_hidden_layers: int = 1, **kwargs: Any) -> None:
        super().__init__(num_hidden_layers=num_hidden_layers, **kwargs)


class GRU4Rec(SequenceModel):
    """Recurrent recommendation (Hidasi et al. 2016), with a softmax over items at every place."""

    config_class = GRU4RecConfig

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__(config)
        size, layers = config.hidden_size, config.num_hidden_layers
        self.recurrent = nn.GRU(
            size, size, layers, batch_first=True, dropout=config.hidden_dropout if layers > 1 else 0
        )
        self.output = nn.Linear(size, size)
        self.post_init()

    def states(self, history: torch.Tensor) -> torch.Tensor:
        # Padding moves to the right and back: a state that ran over it would depend on the batch.
        length = history.shape[1]
        padding = (history == 0).sum(dim=1, keepdim=True)
        places = torch.arange(length, device=history.device)
        inputs = self.dropout(self.items(_moved(history, (places + padding).clamp(max=length - 1))))
        states, _ = self.recurrent(inputs)
        return self.dropout(self.output(_moved(states, (places - padding).clamp(min=0))))


def _moved(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`values` (B, L) or (B, L, H) with the value of `places` (B, L) at each place."""
    if values.dim() == 3:
        places = places[..., None].expand(-1, -1, values.shape[2])
    return values.gather(1, places)
