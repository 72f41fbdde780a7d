"""Models of clicks: logistic regression, FM, wide & deep, DeepFM, DCN-v2, and DIN.

All read fields: each number, each id, each list, whose vectors are averaged, and a history of items. A field has a
weight, which is added to the logit, and a vector of `embedding_size` numbers. The logits are (0, z): their softmax is
the sigmoid of z, so that they are those of a classifier of two labels.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from llmft.models.id_embedding import IdEmbedding
from llmft.models.table_models import PiecewiseLinear, TableConfig, TableModel

UNKNOWN = 1
"""The id of a value that training had too seldom, or not; see tasks/tables/id_columns.py."""


class ClickConfig(TableConfig):
    """The fields of a model for clicks, and its sizes.

    Args:
        field_sizes: for each field of ids the number of its ids, without padding; 0 if it shares those of another.
        field_widths: how many ids a row has of each field.
        field_shares: the place of the field whose ids each has: its own, or another's.
        num_single: how many fields have one id; they come first.
        history_field: the place of the history, whose ids are those of the item; None without.
        embedding_size: width of a field's vector.
        hidden_sizes: sizes of the hidden layers, for models that have some.
        dropout: dropout probability after each hidden layer.
        id_dropout: probability with which an id becomes the unknown one in training. It trains the vector of unknown
            values, which otherwise no row may have, and against learning users by heart.
    """

    def __init__(
        self,
        field_sizes: list[int] | None = None,
        field_widths: list[int] | None = None,
        field_shares: list[int] | None = None,
        num_single: int = 0,
        history_field: int | None = None,
        embedding_size: int = 16,
        hidden_sizes: list[int] | None = None,
        dropout: float = 0.0,
        id_dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self.field_sizes = field_sizes or []
        self.field_widths = field_widths or []
        self.field_shares = field_shares or []
        self.num_single = num_single
        self.history_field = history_field
        self.embedding_size = embedding_size
        self.hidden_sizes = [64, 32] if hidden_sizes is None else hidden_sizes
        self.dropout = dropout
        self.id_dropout = id_dropout
        super().__init__(**kwargs)

    @property
    def num_fields(self) -> int:
        """Fields of a row: numbers, and those of ids."""
        return self.num_numbers + len(self.field_sizes)


class Places(nn.Module):
    """The rows of the table that the ids of a batch stand for: ids of each field are counted from 1, after padding."""

    offsets: torch.Tensor

    def __init__(self, config: ClickConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("offsets", torch.empty(sum(config.field_widths), dtype=torch.long))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Write the offsets into the buffer. transformers calls this for weights that a loaded file does not have."""
        sizes, widths, shares = self.config.field_sizes, self.config.field_widths, self.config.field_shares
        starts = [sum(sizes[:place]) for place in shares]
        found = [start for start, width in zip(starts, widths, strict=True) for _ in range(width)]
        self.offsets.copy_(torch.tensor(found, dtype=torch.long))

    def forward(self, categories: torch.Tensor) -> torch.Tensor:
        """(B, ids) to (B, ids); 0 stays 0."""
        return torch.where(categories > 0, categories + self.offsets, 0)


class ClickModel(TableModel):
    """Base of the models: the fields of a row, and the sum of their weights. A subclass adds to that."""

    config: ClickConfig
    reads_ids = True
    width: int
    """Numbers of a field's vector."""

    def __init__(self, config: ClickConfig, width: int | None = None) -> None:
        super().__init__(config, [])
        self.width = config.embedding_size if width is None else width
        # The weight of an id stands before its vector: one lookup and one gradient for both.
        self.places = Places(config)
        self.table = IdEmbedding(sum(config.field_sizes), 1 + self.width)
        self.number_vectors = nn.Parameter(torch.empty(config.num_numbers, 1 + self.width))
        self.missing_vectors = nn.Parameter(torch.empty(config.num_numbers, 1 + self.width))
        if config.bin_edges:
            self.bin_vectors = nn.Parameter(torch.empty(sum(config.bin_sizes), 1 + self.width))
        self.bias = nn.Parameter(torch.empty(1))

    def _init_weights(self, module: nn.Module) -> None:
        """Small vectors, as products of two are added; He et al. 2015 for layers before a ReLU.

        Zeros for the head and the weights of fields, so that training starts from nearly equal logits.
        """
        if isinstance(module, IdEmbedding | PiecewiseLinear | Places):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
            if module is getattr(self, "classifier", None):
                nn.init.zeros_(module.weight)
        elif isinstance(module, ClickModel):
            for name, parameter in module.named_parameters(recurse=False):
                nn.init.zeros_(parameter) if name == "bias" else nn.init.normal_(parameter, std=self.table.std)
        own = [module.weight] if isinstance(module, IdEmbedding) else []
        own += [self.number_vectors, self.missing_vectors] if isinstance(module, ClickModel) else []
        for vectors in own:
            nn.init.zeros_(vectors.data[:, :1])

    def number_fields(self, numbers: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """(B, N, 1 + width): a number times a vector, and another vector for a missing one; and those of its bins."""
        vectors = numbers[..., None] * self.number_vectors + missing[..., None] * self.missing_vectors
        for shares in self.binned(numbers, missing):
            sizes = self.config.bin_sizes
            pairs = zip(shares.split(sizes, dim=1), self.bin_vectors.split(sizes), strict=True)
            vectors = vectors + torch.stack([share @ weights for share, weights in pairs], dim=1)
        return vectors

    def fields(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """The weight and vector of each field, (B, fields, 1 + width); arguments as for `forward`.

        A list without any id is exactly zero.
        """
        config, single = self.config, self.config.num_single
        if self.training and config.id_dropout:
            lost = torch.rand(categories.shape, device=categories.device) < config.id_dropout
            categories = torch.where(lost & (categories > 0), UNKNOWN, categories)
        rows = self.table(self.places(categories))
        found = [rows[:, :single]]
        if config.num_numbers:
            found.insert(0, self.number_fields(numbers, missing))
        start = single
        for place in range(single, len(config.field_widths)):
            stop = start + config.field_widths[place]
            there = categories[:, start:stop] > 0
            found.append(self.pooled(place, rows, rows[:, start:stop], there)[:, None])
            start = stop
        return torch.cat(found, dim=1)

    def pooled(self, place: int, rows: torch.Tensor, own: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """The mean over the ids of a list, (B, 1 + width).

        Args:
            place: of the field.
            rows: those of all ids of a row, (B, ids, 1 + width).
            own: those of the list, (B, L, 1 + width).
            there: (B, L), whether there is an id, or padding.
        """
        return own.sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1)

    def logits(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        fields = self.fields(numbers, missing, categories)
        z = fields[..., 0].sum(dim=1) + self.bias + self.interactions(fields[..., 1:])
        return torch.stack([torch.zeros_like(z), z], dim=1)

    def interactions(self, vectors: torch.Tensor) -> torch.Tensor:
        """What the fields add together, (B,), from their vectors (B, fields, width)."""
        raise NotImplementedError

    def hidden(self, width: int) -> nn.Sequential:
        """The hidden layers over inputs of `width`."""
        sizes = [width, *self.config.hidden_sizes]
        return nn.Sequential(
            *(
                part
                for before, after in pairwise(sizes)
                for part in (nn.Linear(before, after), nn.ReLU(), nn.Dropout(self.config.dropout))
            )
        )


def factorized(vectors: torch.Tensor) -> torch.Tensor:
    """The sum of the products of all pairs of vectors, (B,): half the square of the sum less the sum of squares.

    Rendle 2010, "Factorization Machines", lemma 3.1.

    Args:
        vectors: (B, fields, width).
    """
    return 0.5 * (vectors.sum(dim=1).square() - vectors.square().sum(dim=1)).sum(dim=1)


class ClickLRConfig(ClickConfig):
    """Logistic regression has no sizes besides those of its fields."""

    model_type = "click_lr"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class ClickLRForClassification(ClickModel):
    """Logistic regression: a weight for each number and each id."""

    config_class = ClickLRConfig

    def __init__(self, config: ClickLRConfig) -> None:
        super().__init__(config, width=0)
        self.post_init()

    def interactions(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors.sum(dim=(1, 2))  # of no numbers: zero


class FMConfig(ClickConfig):
    """A factorization machine."""

    model_type = "fm"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class FMForClassification(ClickModel):
    """Factorization machine (Rendle 2010): the product of the vectors of each pair of fields."""

    config_class = FMConfig

    def __init__(self, config: FMConfig) -> None:
        super().__init__(config)
        self.post_init()

    def interactions(self, vectors: torch.Tensor) -> torch.Tensor:
        return factorized(vectors)


class DeepModel(ClickModel):
    """Base of models with an MLP over the vectors of all fields."""

    def __init__(self, config: ClickConfig, more: int = 0) -> None:
        """`more`: vectors beside those of the fields."""
        super().__init__(config)
        width = (config.num_fields + more) * self.width
        self.layers = self.hidden(width)
        self.classifier = nn.Linear([width, *config.hidden_sizes][-1], 1)

    def interactions(self, vectors: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classifier(self.layers(vectors.flatten(1)))
        return scores.squeeze(1)


class WideDeepConfig(ClickConfig):
    """Wide & deep."""

    model_type = "wide_deep"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class WideDeepForClassification(DeepModel):
    """Wide & deep (Cheng et al. 2016, https://arxiv.org/abs/1606.07792): an MLP over the vectors of all fields."""

    config_class = WideDeepConfig

    def __init__(self, config: WideDeepConfig) -> None:
        super().__init__(config)
        self.post_init()


class DeepFMConfig(ClickConfig):
    """DeepFM."""

    model_type = "deepfm"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class DeepFMForClassification(DeepModel):
    """DeepFM (Guo et al. 2017, https://arxiv.org/abs/1703.04247): a factorization machine and an MLP, one embedding."""

    config_class = DeepFMConfig

    def __init__(self, config: DeepFMConfig) -> None:
        super().__init__(config)
        self.post_init()

    def interactions(self, vectors: torch.Tensor) -> torch.Tensor:
        return super().interactions(vectors) + factorized(vectors)


class DCNConfig(ClickConfig):
    """DCN-v2.

    Args:
        num_cross_layers: cross layers.
        cross_rank: rank of their matrices; None for full ones.
    """

    model_type = "dcn"

    def __init__(self, num_cross_layers: int = 2, cross_rank: int | None = None, **kwargs: Any) -> None:
        self.num_cross_layers = num_cross_layers
        self.cross_rank = cross_rank
        super().__init__(**kwargs)


class DCNForClassification(ClickModel):
    """DCN-v2 (Wang et al. 2021, https://arxiv.org/abs/2008.13535): cross layers and an MLP, side by side.

    A cross layer is x <- x0 * (W x + b) + x, with x0 the vectors of all fields: with every layer, products of one more
    field. With `cross_rank`, W is the product of two narrow matrices.
    """

    config_class = DCNConfig

    def __init__(self, config: DCNConfig) -> None:
        super().__init__(config)
        width, rank = config.num_fields * self.width, config.cross_rank
        self.crosses = nn.ModuleList(
            nn.Linear(width, width) if rank is None else nn.Sequential(nn.Linear(width, rank), nn.Linear(rank, width))
            for _ in range(config.num_cross_layers)
        )
        self.layers = self.hidden(width)
        self.classifier = nn.Linear(width + [width, *config.hidden_sizes][-1], 1)
        self.post_init()

    def interactions(self, vectors: torch.Tensor) -> torch.Tensor:
        first = vectors.flatten(1)
        crossed = first
        for cross in self.crosses:
            crossed = first * cross(crossed) + crossed
        scores: torch.Tensor = self.classifier(torch.cat([crossed, self.layers(first)], dim=1))
        return scores.squeeze(1)


class DINConfig(ClickConfig):
    """DIN.

    Args:
        attention_sizes: hidden sizes of the network that weighs the items of the history.
        positions: whether the weight of an item also depends on how many items ago it was clicked.
    """

    model_type = "din"

    def __init__(self, attention_sizes: list[int] | None = None, positions: bool = True, **kwargs: Any) -> None:
        self.attention_sizes = attention_sizes or [32]
        self.positions = positions
        super().__init__(**kwargs)


class DINForClassification(DeepModel):
    """DIN (Zhou et al. 2018, https://arxiv.org/abs/1706.06978): the history is summed with weights that depend on the
    item in question.

    The weight of an item h of the history, given the item t, is an MLP of (h, t, h - t, h * t), and with `positions`,
    which the paper has not, of a number for how long ago it is. As in the paper, weights are not normalized, so that a
    history of many such items counts more than one of few. The product of the sum and t is one more vector.
    """

    config_class = DINConfig

    def __init__(self, config: DINConfig) -> None:
        if config.history_field is None:
            raise ValueError(
                "din needs a history: task.history=COLUMN task.item=COLUMN, or task.user, task.item and task.time"
            )
        super().__init__(config, more=1)
        self.history, self.item = config.history_field, config.field_shares[config.history_field]
        sizes = [4 * self.width, *config.attention_sizes, 1]
        self.attention = nn.Sequential(
            *(
                part
                for place, (before, after) in enumerate(pairwise(sizes))
                for part in ([nn.ReLU()] * (place > 0) + [nn.Linear(before, after)])
            )
        )
        if config.positions:
            self.position_weights = nn.Parameter(torch.empty(config.field_widths[self.history]))
        self.post_init()

    def pooled(self, place: int, rows: torch.Tensor, own: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        if place != self.history:
            return super().pooled(place, rows, own, there)
        clicked = own[..., 1:]
        asked = rows[:, self.item, None, 1:].expand_as(clicked)
        weights = self.attention(torch.cat([clicked, asked, clicked - asked, clicked * asked], dim=-1))
        if self.config.positions:
            weights = weights * (1 + self.position_weights[:, None])
        # Padding has weight 0, and an empty history is exactly zero.
        summed = (weights.masked_fill(~there[..., None], 0) * clicked).sum(dim=1)
        return torch.cat([super().pooled(place, rows, own[..., :1], there), summed], dim=1)

    def interactions(self, vectors: torch.Tensor) -> torch.Tensor:
        numbers = self.config.num_numbers
        history, item = numbers + self.history, numbers + self.item
        both = vectors[:, history] * vectors[:, item]
        return super().interactions(torch.cat([vectors, both[:, None]], dim=1))
