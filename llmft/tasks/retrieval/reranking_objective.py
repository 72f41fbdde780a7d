"""What trains rerankers: each candidate by itself, or the candidates of a query against each other."""

from typing import Any

import torch
from torch.nn import functional

from llmft.tasks.objective import Batch, Objective
from llmft.tasks.retrieval.groups import by_length


class RerankingObjective(Objective):
    """The loss that `task.loss` names, over the candidates of each row."""

    own_keys = ("sizes", "labels")

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return self.compare(self._logits(model, batch), batch)

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[list[Any], float | None]:
        """The logits of the candidates of each feature, (candidates,); of a feature that is one pair, (1,)."""
        logits = self._logits(model, batch)
        sizes = batch["sizes"].tolist() if "sizes" in batch else 1
        parts = [part.numpy() for part in logits.cpu().split(sizes)]
        return parts, self.compare(logits, batch).item() if "labels" in batch else None

    def _logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """(N,), read in groups of similar length."""
        inputs = {name: values for name, values in batch.items() if name not in self.own_keys}
        return by_length(inputs, lambda part: self.found(model(**part), part)).squeeze(-1)

    def compare(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The mean over rows of a loss of logits (N,).

        `binary`: the mean over the candidates of a row of their binary cross entropy, so that rows of many candidates
        do not count more. `listwise`: the cross entropy of the right candidates in the softmax over all of a row (Gao
        et al. 2021, arXiv:2101.08751).
        """
        sizes, labels = batch["sizes"], batch["labels"]
        rows = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
        if self.task.options.loss == "binary":
            each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none") / sizes[rows]
            return each.sum() / len(sizes)
        parts = zip(logits.split(sizes.tolist()), labels.split(sizes.tolist()), strict=True)
        found = [-(functional.log_softmax(scores, dim=0) * right).sum() / right.sum() for scores, right in parts]
        return torch.stack(found).mean()
