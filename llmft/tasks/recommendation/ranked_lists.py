"""What a recommender's answers are computed by: the scores of all items stay in a batch, and lists leave it."""

from typing import Any

import numpy
import pyarrow
import torch

from llmft.metrics.ranking_metrics import in_order, refuse_nan, top_k
from llmft.tasks.objective import Batch, Objective


class RecommendationObjective(Objective):
    """The model's own loss; lists of items, or ratings, as outputs."""

    mean_over = "words"
    own_keys = ("seen",)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = model(**{key: value for key, value in batch.items() if key != "seen"}).loss
        return loss

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[Any, float | None]:
        """For each row a list, (2, k) of ids and scores, or its ratings (L,)."""
        found = self.found(model(user=batch["user"], history=batch["history"]), batch)
        if self.task.options.problem == "rating":
            return list(found.cpu().numpy()), None
        return self._lists(found, batch), None

    def _lists(self, scores: torch.Tensor, batch: Batch) -> list[numpy.ndarray]:
        """The best items of each row, (2, k), in the order of `ranking_metrics.top_k`.

        `torch.topk` takes a tenth of the time of numpy's `argpartition`, but leaves to chance which of the items with
        the k-th score it gives: rows where the next score is equal are ranked again.
        """
        counts, k = self.task.state.counts, self.task.listed
        cold = (batch["history"] == 0).all(dim=1)
        if cold.any():
            scores = torch.where(cold[:, None], torch.from_numpy(counts).to(scores), scores)
        if "seen" in batch:
            # In place where the scores are this batch's own: a copy takes as long as the product that made them.
            scores = scores.clone() if 0 in scores.stride() else scores
            rows, places = batch["seen"].nonzero(as_tuple=True)
            scores[rows, batch["seen"][rows, places] - 1] = -torch.inf
        values, ids = scores.topk(min(k + 1, scores.shape[1]), dim=1)
        best, chosen = values.cpu().numpy(), ids.cpu().numpy()
        refuse_nan(best)  # topk puts NaN first
        lists, listed = in_order(chosen[:, :k], best[:, :k], counts)
        if best.shape[1] > k:
            tied = numpy.flatnonzero((best[:, k - 1] == best[:, k]) & (best[:, k] > -numpy.inf))
            if len(tied):
                lists[tied], listed[tied] = top_k(scores[torch.from_numpy(tied)].cpu().numpy(), k, counts)
        return list(numpy.stack([lists.astype(numpy.float64), listed.astype(numpy.float64)], axis=1))

    def gather(self, features: pyarrow.Table) -> Batch:
        """All interactions of the training features, for a model that is fitted to them: `user`, `item` (n,), and of
        ratings `rating`."""
        key = "window" if "window" in features.column_names else "history"
        lists = features[key].combine_chunks()
        lengths = numpy.diff(lists.offsets.to_numpy())
        users = numpy.repeat(features["user"].to_numpy(), lengths)
        items = lists.flatten().to_numpy()
        found = {"user": users, "item": items}
        if "labels" in features.column_names:
            found["rating"] = features["labels"].combine_chunks().flatten().to_numpy().astype(numpy.float32)
        if key == "window":
            # All windows but a user's first begin with the last item of the one before.
            kept = numpy.ones(len(items), dtype=bool)
            starts = numpy.cumsum(lengths) - lengths
            kept[starts[(features["first"].to_numpy() == 0) & (lengths > 0)]] = False
            found = {name: values[kept] for name, values in found.items()}
        return {name: torch.from_numpy(numpy.array(values)) for name, values in found.items()}
