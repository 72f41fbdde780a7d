"""Recommenders without sequences: popularity, neighbors, iALS, BPR-MF, and SVD++.

All of them give a score to every item, (B, num_items), from the number of a user and the items of a history; SVD++
rates the items that it is given. A user that training did not have is a history alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy
import torch
from scipy.sparse import csr_matrix
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

Batch = dict[str, torch.Tensor]


@dataclass
class Scores(ModelOutput):
    """The scores of all items, or ratings of some, (B, ...)."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class RecommenderConfig(PreTrainedConfig):
    """Sizes that the data decide.

    Args:
        num_users, num_items: without 0, which is an unknown user, or padding.
        max_position_embeddings: the longest history that is read.
    """

    def __init__(
        self, num_users: int = 1, num_items: int = 1, max_position_embeddings: int = 50, **kwargs: Any
    ) -> None:
        self.num_users, self.num_items = num_users, num_items
        self.max_position_embeddings = max_position_embeddings
        super().__init__(**kwargs)


class Recommender(PreTrainedModel):
    """Base of all recommenders that are fitted to interactions."""

    def _init_weights(self, module: nn.Module) -> None:
        """Models initialize themselves."""

    def logits(self, user: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        """The score of each item, (B, num_items); arguments as for `forward`."""
        raise NotImplementedError

    def forward(self, user: torch.Tensor, history: torch.Tensor, labels: torch.Tensor | None = None) -> Scores:
        """Scores of all items.

        Args:
            user: (B,) int64, 0 for an unknown one.
            history: (B, L) int64 items, padded with 0 on the left.
            labels: ignored: these models have steps of their own, or none.
        """
        return Scores(logits=self.logits(user, history))

    def plan(self) -> str:
        """A line on what fitting will do."""
        return "fitted to all interactions at once"


def matrix(batch: Batch, users: int, items: int) -> csr_matrix:
    """(users, items), 1 where a user had an item."""
    pairs = (batch["user"].numpy() - 1, batch["item"].numpy() - 1)
    found = csr_matrix((numpy.ones(len(pairs[0]), dtype=numpy.float32), pairs), shape=(users, items))
    found.data[:] = 1.0
    return found


def multi_hot(history: torch.Tensor, items: int) -> torch.Tensor:
    """(B, items) float, 1 for each item of a history."""
    found = torch.zeros(history.shape[0], items + 1, device=history.device)
    return found.scatter(1, history, 1.0)[:, 1:]


class PopularityConfig(RecommenderConfig):
    """Popularity has no options."""

    model_type = "popularity"

    def __init__(self, **kwargs: Any) -> None:  # transformers makes one of its own where a class has none
        super().__init__(**kwargs)


class Popularity(Recommender):
    """Every item's number of interactions in training, the same for all users."""

    config_class = PopularityConfig

    def __init__(self, config: PopularityConfig) -> None:
        super().__init__(config)
        self.counts = nn.Parameter(torch.zeros(config.num_items), requires_grad=False)
        self.post_init()

    def logits(self, user: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        return self.counts[None].expand(user.shape[0], -1)

    def fit(self, train: Batch, validation: Any, loss: str | None, seed: int, threads: int) -> dict[str, Any]:
        """Count."""
        counted = numpy.bincount(train["item"].numpy(), minlength=self.config.num_items + 1)[1:]
        self.counts.data = torch.from_numpy(counted).float()
        return {"interactions": len(train["item"])}


class NeighborsConfig(RecommenderConfig):
    """Neighborhood models.

    Args:
        neighbors: how many of the most similar items, or users, count.
        shrinkage: added to the norms of a cosine, so that items with few users are not similar by chance.
    """

    def __init__(self, neighbors: int = 100, shrinkage: float = 10.0, **kwargs: Any) -> None:
        self.neighbors, self.shrinkage = neighbors, shrinkage
        super().__init__(**kwargs)


class ItemNeighborsConfig(NeighborsConfig):
    """The most similar items."""

    model_type = "item_neighbors"

    def __init__(self, **kwargs: Any) -> None:  # transformers makes one of its own where a class has none
        super().__init__(**kwargs)


class UserNeighborsConfig(NeighborsConfig):
    """The most similar users."""

    model_type = "user_neighbors"

    def __init__(self, **kwargs: Any) -> None:  # transformers makes one of its own where a class has none
        super().__init__(**kwargs)


def similarities(vectors: csr_matrix, neighbors: int, shrinkage: float) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The most similar rows of each row by cosine, without itself: places and cosines, both (n, neighbors).

    1,000 rows at a time, since all pairs of 30,000 items would take 3.6 GB.
    """
    n, k = vectors.shape[0], min(neighbors, vectors.shape[0])
    norms = numpy.sqrt(numpy.asarray(vectors.power(2).sum(axis=1)).ravel())
    places, values = numpy.zeros((n, k), dtype=numpy.int64), numpy.zeros((n, k), dtype=numpy.float32)
    for start in range(0, n, 1000):
        rows = slice(start, min(start + 1000, n))
        part = (vectors[rows] @ vectors.T).toarray()
        part /= norms[rows, None] * norms + shrinkage + 1e-9
        part[numpy.arange(part.shape[0]), numpy.arange(rows.start, rows.stop)] = 0.0
        best = numpy.sort(numpy.argpartition(-part, k - 1, axis=1)[:, :k], axis=1)
        places[rows], values[rows] = best, numpy.take_along_axis(part, best, axis=1)
    return places, values


class ItemNeighbors(Recommender):
    """The sum of the similarities to the items of a history (Sarwar et al. 2001; Deshpande & Karypis 2004)."""

    config_class = ItemNeighborsConfig

    def __init__(self, config: ItemNeighborsConfig) -> None:
        super().__init__(config)
        k = min(config.neighbors, config.num_items)
        self.register_buffer("places", torch.zeros(config.num_items + 1, k, dtype=torch.long))
        self.values = nn.Parameter(torch.zeros(config.num_items + 1, k), requires_grad=False)
        self.post_init()

    def logits(self, user: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        rows = history.shape[0]
        found = torch.zeros(rows, self.config.num_items, device=history.device)
        return found.scatter_add(1, self.places[history].reshape(rows, -1), self.values[history].reshape(rows, -1))

    def fit(self, train: Batch, validation: Any, loss: str | None, seed: int, threads: int) -> dict[str, Any]:
        """Find the neighbors of each item."""
        vectors = matrix(train, self.config.num_users, self.config.num_items).T.tocsr()
        places, values = similarities(vectors, self.config.neighbors, self.config.shrinkage)
        # Row 0 is padding, which is similar to nothing.
        self.places = torch.from_numpy(numpy.pad(places, ((1, 0), (0, 0))))
        self.values.data = torch.from_numpy(numpy.pad(values, ((1, 0), (0, 0))))
        return {"interactions": len(train["item"])}


class UserNeighbors(Recommender):
    """What the most similar users had, weighted by their similarity (Resnick et al. 1994), by cosine of histories."""

    config_class = UserNeighborsConfig

    def __init__(self, config: UserNeighborsConfig) -> None:
        super().__init__(config)
        self.had = nn.Parameter(torch.zeros(config.num_users, config.num_items, dtype=torch.float32), False)
        self.post_init()

    def logits(self, user: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        own = multi_hot(history, self.config.num_items)
        shared = own @ self.had.T
        norms = own.sum(dim=1, keepdim=True).sqrt() * self.had.sum(dim=1).sqrt()
        alike = shared / (norms + self.config.shrinkage + 1e-9)
        itself = torch.arange(1, self.config.num_users + 1, device=user.device) == user[:, None]
        alike = alike.masked_fill(itself, 0.0)
        least = alike.topk(min(self.config.neighbors, alike.shape[1]), dim=1).values[:, -1:]
        return alike.masked_fill(alike < least, 0.0) @ self.had

    def fit(self, train: Batch, validation: Any, loss: str | None, seed: int, threads: int) -> dict[str, Any]:
        """Keep what every user had."""
        self.had.data = torch.from_numpy(matrix(train, self.config.num_users, self.config.num_items).toarray())
        return {"interactions": len(train["item"])}


class FactorConfig(RecommenderConfig):
    """Models of vectors of users and items.

    Args:
        factors: the size of a vector.
        l2: weight of the squared norms of a batch's vectors in the loss.
    """

    def __init__(self, factors: int = 64, l2: float = 0.0, **kwargs: Any) -> None:
        self.factors, self.l2 = factors, l2
        super().__init__(**kwargs)


class FactorModel(Recommender):
    """A vector for each user and item; the score is their product."""

    init_std = 0.01

    def __init__(self, config: FactorConfig) -> None:
        super().__init__(config)
        self.users = nn.Embedding(config.num_users + 1, config.factors)
        self.items = nn.Embedding(config.num_items + 1, config.factors)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=self.init_std)
        self.post_init()

    def logits(self, user: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        known = self.users(user)
        vectors = torch.where((user == 0)[:, None], self.of_history(history), known)
        return vectors @ self.items.weight[1:].T

    def of_history(self, history: torch.Tensor) -> torch.Tensor:
        """The vector of somebody unknown: the mean of their items' vectors, scaled to the length of users' vectors."""
        there = (history != 0)[..., None].float()
        mean = (self.items(history) * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)
        length = self.users.weight[1:].norm(dim=1).mean()
        return functional.normalize(mean, dim=1) * length


class IALSConfig(FactorConfig):
    """Implicit ALS.

    Args:
        alpha: the weight of an interaction, where that of none is 1.
        l2: the regularization.
        iterations: how often users and items are solved by turns.
    """

    model_type = "ials"

    def __init__(self, alpha: float = 4.0, l2: float = 30.0, iterations: int = 15, **kwargs: Any) -> None:
        self.alpha, self.iterations = alpha, iterations
        super().__init__(l2=l2, **kwargs)


class IALS(FactorModel):
    """Alternating least squares for interactions (Hu, Koren & Volinsky 2008), by conjugate gradients (Takács et al.
    2011).

    An interaction is a 1 of weight alpha, and everything else a 0 of weight 1.
    """

    config_class = IALSConfig
    STEPS = 3
    """Conjugate gradient steps for each solution, which starts from the one before."""

    def plan(self) -> str:
        return f"{self.config.iterations} iterations of least squares, {self.config.factors} factors"

    def fit(self, train: Batch, validation: Any, loss: str | None, seed: int, threads: int) -> dict[str, Any]:
        """Solve users and items by turns."""
        rng = numpy.random.default_rng(seed)
        had = matrix(train, self.config.num_users, self.config.num_items)
        sides = (had, had.T.tocsr())
        vectors = [(rng.random((n, self.config.factors)) * 0.01).astype(numpy.float32) for n in had.shape]
        for _ in range(self.config.iterations):
            for own in (0, 1):
                vectors[own] = self._solve(sides[own], vectors[own], vectors[1 - own])
        for table, found in zip((self.users, self.items), vectors, strict=True):
            table.weight.data = torch.from_numpy(numpy.pad(found, ((1, 0), (0, 0))))
        return {"iterations": self.config.iterations, "interactions": len(train["item"])}

    def _solve(self, had: csr_matrix, x: numpy.ndarray, y: numpy.ndarray) -> numpy.ndarray:
        """For each row u the x that solves (Y'Y + (alpha - 1) Y_u'Y_u + l2 I) x = alpha Y_u'1, all rows at once."""
        gram = y.T @ y + self.config.l2 * numpy.eye(y.shape[1], dtype=numpy.float32)
        rows = numpy.repeat(numpy.arange(had.shape[0]), numpy.diff(had.indptr))
        others = y[had.indices]  # (interactions, factors)

        def product(p: numpy.ndarray) -> numpy.ndarray:
            weights = numpy.einsum("nf,nf->n", p[rows], others) * (self.config.alpha - 1)
            found: numpy.ndarray = p @ gram + csr_matrix((weights, had.indices, had.indptr), shape=had.shape) @ y
            return found

        residual = self.config.alpha * (had @ y) - product(x)
        direction, squared = residual.copy(), (residual**2).sum(axis=1, keepdims=True)
        for _ in range(self.STEPS):
            step = product(direction)
            # A row without interactions has nothing to solve.
            rate = squared / numpy.maximum((direction * step).sum(axis=1, keepdims=True), 1e-20)
            x = x + rate * direction
            residual = residual - rate * step
            before, squared = squared, (residual**2).sum(axis=1, keepdims=True)
            direction = residual + squared / numpy.maximum(before, 1e-20) * direction
        return x

    def of_history(self, history: torch.Tensor) -> torch.Tensor:
        """The vector that training would give to a user with this history, exactly."""
        there = (history != 0)[..., None].float()
        own = self.items(history) * there
        y = self.items.weight[1:]
        eye = torch.eye(self.config.factors, device=y.device)
        left = y.T @ y + self.config.l2 * eye + (self.config.alpha - 1) * own.transpose(1, 2) @ own
        return torch.linalg.solve(left, self.config.alpha * own.sum(dim=1))


class BPRConfig(FactorConfig):
    """BPR-MF; the options of `FactorConfig`."""

    model_type = "bpr"

    def __init__(self, **kwargs: Any) -> None:  # transformers makes one of its own where a class has none
        super().__init__(**kwargs)


class BPR(FactorModel):
    """Matrix factorization by Bayesian personalized ranking (Rendle et al. 2009): an item that a user had is to score
    higher than one drawn among the others."""

    config_class = BPRConfig
    sparse_steps = True

    def plan(self) -> str:
        return f"pairs of items, {self.config.factors} factors"

    def start(self, train: Batch) -> None:
        """Take the training interactions, of which `epoch` draws pairs."""
        self.pairs = (train["user"], train["item"])
        self.known = numpy.sort((train["user"] * (self.config.num_items + 1) + train["item"]).numpy())

    def negatives(self, users: torch.Tensor, rng: numpy.random.Generator) -> torch.Tensor:
        """An item for each user that they did not have, drawn evenly. All at once: 0.01 s for 80,000."""
        own = users.numpy()
        drawn = rng.integers(1, self.config.num_items + 1, len(own))
        left = numpy.arange(len(own))
        for _ in range(100):  # a user who had everything keeps what was drawn last
            keys = own[left] * (self.config.num_items + 1) + drawn[left]
            places = numpy.minimum(numpy.searchsorted(self.known, keys), len(self.known) - 1)
            left = left[self.known[places] == keys]
            if not len(left):
                break
            drawn[left] = rng.integers(1, self.config.num_items + 1, len(left))
        return torch.from_numpy(drawn)

    def batches(self, rng: numpy.random.Generator, size: int) -> list[tuple[torch.Tensor, ...]]:
        """The batches of an epoch: users, items that they had, and items that they did not have."""
        users, items = self.pairs
        order = torch.from_numpy(rng.permutation(len(users)))
        users, items = users[order], items[order]
        columns = (users.split(size), items.split(size), self.negatives(users, rng).split(size))
        return list(zip(*columns, strict=True))

    def step_loss(self, batch: tuple[torch.Tensor, ...], sparse: bool) -> torch.Tensor:
        """-log sigmoid of the difference of the scores, and the L2 of the batch's rows alone: Adam's own weight decay
        would set rows that no batch holds to 0."""
        users, better, worse = batch
        user = functional.embedding(users, self.users.weight, sparse=sparse)
        # Both at once: a look-up less, and one gradient of the size of the table.
        both = functional.embedding(torch.cat([better, worse]), self.items.weight, sparse=sparse)
        one, other = both.split(len(users))
        loss = -functional.logsigmoid((user * (one - other)).sum(dim=1)).mean()
        if self.config.l2:
            loss = loss + self.config.l2 * (user.square().sum() + both.square().sum()) / len(users)
        return loss


class SVDPlusPlusConfig(FactorConfig):
    """SVD++.

    Args:
        init_std: standard deviation of new vectors.
    """

    model_type = "svdpp"

    def __init__(self, factors: int = 20, l2: float = 0.08, init_std: float = 0.05, **kwargs: Any) -> None:
        self.init_std = init_std
        super().__init__(factors=factors, l2=l2, **kwargs)


class SVDPlusPlus(Recommender):
    """Ratings by vectors of users and items, biases, and which items a user has rated at all (Koren 2008, eq. 15)."""

    config_class = SVDPlusPlusConfig

    def __init__(self, config: SVDPlusPlusConfig) -> None:
        super().__init__(config)
        users, items, d = config.num_users + 1, config.num_items + 1, config.factors
        self.users, self.items, self.implicit = nn.Embedding(users, d), nn.Embedding(items, d), nn.Embedding(items, d)
        self.user_bias, self.item_bias = nn.Embedding(users, 1), nn.Embedding(items, 1)
        for table in (self.users, self.items, self.implicit):
            nn.init.normal_(table.weight, std=config.init_std)
        for table in (self.user_bias, self.item_bias):
            nn.init.zeros_(table.weight)
        self.mean = nn.Parameter(torch.zeros(()), requires_grad=False)
        # What every user has rated, summed: a model answers without the training rows.
        self.sums = nn.Parameter(torch.zeros(users, d), requires_grad=False)
        self.post_init()

    def plan(self) -> str:
        return f"ratings, {self.config.factors} factors"

    def forward(self, user: torch.Tensor, history: torch.Tensor, labels: torch.Tensor | None = None) -> Scores:
        """The ratings (B, L) that users give to items; of an unknown user or item, what the other says.

        Args:
            user: (B,), 0 for an unknown one.
            history: (B, L), the items to rate, 0 for an unknown one.
            labels: ignored, as for the others.
        """
        vector = torch.where((user == 0)[:, None], 0.0, self.users(user) + self.sums[user])
        items = torch.where((history == 0)[..., None], 0.0, self.items(history))
        biases = torch.where(user == 0, 0.0, self.user_bias(user)[:, 0])[:, None]
        biases = biases + torch.where(history == 0, 0.0, self.item_bias(history)[..., 0])
        return Scores(logits=self.mean + biases + (items * vector[:, None]).sum(dim=2))

    def start(self, train: Batch) -> None:
        """Take the training ratings."""
        self.triples = (train["user"], train["item"], train["rating"])
        self.mean.data = train["rating"].mean()
        shape = (self.config.num_users + 1, self.config.num_items + 1)
        counts = torch.bincount(train["user"], minlength=shape[0]).float()
        weights = counts[train["user"]].rsqrt()
        pairs = torch.stack([train["user"], train["item"]])
        # Every user's sum by one product, which takes less time than the bags of a batch while all users fit.
        rated = torch.sparse_coo_tensor(pairs, weights, shape, check_invariants=True)
        self.rated = rated.coalesce().to_sparse_csr()

    def batches(self, rng: numpy.random.Generator, size: int) -> list[tuple[torch.Tensor, ...]]:
        """The batches of an epoch: users, items, and ratings."""
        order = torch.from_numpy(rng.permutation(len(self.triples[0])))
        return list(zip(*(column[order].split(size) for column in self.triples), strict=True))

    def step_loss(self, batch: tuple[torch.Tensor, ...], sparse: bool) -> torch.Tensor:
        """The squared error, and the L2 of what the batch reads."""
        users, items, ratings = batch
        sums = (self.rated @ self.implicit.weight)[users]
        user, item = self.users(users), self.items(items)
        biases = (self.user_bias(users)[:, 0], self.item_bias(items)[:, 0])
        error = self.mean + biases[0] + biases[1] + ((user + sums) * item).sum(dim=1) - ratings
        norms = sum(part.square().sum() for part in (user, item, sums, *biases))
        return error.square().mean() + self.config.l2 * norms / len(users)

    def finish(self) -> None:
        """Keep what the sums have become."""
        with torch.no_grad():
            self.sums.data = self.rated @ self.implicit.weight
