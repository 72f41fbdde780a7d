"""What trains embeddings: vectors by pooling, and the loss that compares the texts of a batch."""

from typing import Any

import torch
from torch.nn import functional

from llmft.schema.problem import Problem, UserError
from llmft.tasks.objective import Batch, Objective
from llmft.tasks.retrieval import contrastive_losses as losses
from llmft.tasks.retrieval.groups import by_length


class EmbeddingObjective(Objective):
    """The loss that `task.loss` names, over the vectors of a batch."""

    own_keys = ("sizes", "labels")

    def read(self, output: Any, batch: Batch) -> torch.Tensor:
        """The vectors (N, D), float32."""
        state = self.task.state
        vectors = pool(output.last_hidden_state.float(), batch["attention_mask"], state.pooling)
        return functional.normalize(vectors, dim=-1) if state.normalize else vectors

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return self.compare(self.embed(model, batch, self.task.options.chunk), batch)

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[list[Any], float | None]:
        """The vectors of the texts of each feature, (texts, D); of a feature that is one text, (D,)."""
        vectors = self.embed(model, batch)
        if "sizes" not in batch:
            return list(vectors.cpu().numpy()), None
        parts = vectors.cpu().split(batch["sizes"].tolist())
        known = self.task.options.form == "pairs" or "labels" in batch
        loss = self.compare(vectors, batch).item() if known else None
        return [part.numpy() for part in parts], loss

    def embed(self, model: torch.nn.Module, batch: Batch, chunk: int | None = None) -> torch.Tensor:
        """The vectors of all texts of a batch, (N, D); `chunk` as in `by_length`."""
        config: Any = getattr(model, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            what = f"must be an encoder or a decoder, got {config.model_type}, which has both"
            raise UserError(Problem("model.path", what, hint="Choose model=minilm, bert_base, or roberta."))
        inputs = {name: values for name, values in batch.items() if name not in self.own_keys}
        return by_length(inputs, lambda part: self.found(model(**part), part), chunk)

    def compare(self, vectors: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss of vectors (N, D) of the texts of a batch."""
        sizes = self.task.options.matryoshka
        if wrong := [size for size in sizes if size > vectors.shape[1]]:
            what = f"must be lengths up to the {vectors.shape[1]} of the model's vectors, got {wrong[0]}"
            raise UserError(Problem("task.matryoshka", what))
        if sizes:
            return losses.matryoshka(vectors, sizes, lambda shorter: self._compare(shorter, batch))
        return self._compare(vectors, batch)

    def _compare(self, vectors: torch.Tensor, batch: Batch) -> torch.Tensor:
        options, labels = self.task.options, batch.get("labels")
        if options.loss == "batch_hard":
            assert labels is not None
            return losses.batch_hard(vectors, labels, options.margin)
        if options.loss == "supervised_contrastive":
            assert labels is not None
            return losses.supervised_contrastive(vectors, labels, options.scale)
        sizes = batch["sizes"]
        first = torch.cumsum(sizes, dim=0) - sizes
        anchors, positives = vectors[first], vectors[first + 1]
        if options.form == "scores":
            assert labels is not None
            if options.loss == "cosine":
                return losses.cosine(anchors, positives, labels)
            return losses.cosent(anchors, positives, labels, options.scale)
        more = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
        more[torch.cat([first, first + 1])] = False
        if options.loss == "triplet":
            owner = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)[more]
            return losses.triplet(anchors[owner], positives[owner], vectors[more], options.margin)
        wrong = wrong_answers(batch, first, more)
        return losses.in_batch(anchors, positives, vectors[more], wrong, options.scale, options.symmetric)


def wrong_answers(batch: Batch, first: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """Which texts are wrong answers of which anchors, (B, B + M).

    A text that equals the right one is none, nor is a right text of an equal anchor: data sets repeat questions and
    passages, and a right answer that is pushed away teaches the opposite.

    Args:
        first: (B,), where the texts of each row begin.
        more: (N,), whether a text is a negative of a row.
    """
    # A polynomial of the tokens, modulo 2^64, tells texts apart.
    ids = (batch["input_ids"] + 1) * batch["attention_mask"]
    powers = torch.full((ids.shape[1],), 6364136223846793005, device=ids.device).cumprod(0)
    keys = ((ids * ids + ids) * powers).sum(dim=1)
    anchors, positives = keys[first], keys[first + 1]
    texts = torch.cat([positives, keys[more]])
    right = positives[:, None] == texts[None]
    right[:, : len(first)] |= anchors[:, None] == anchors[None]
    return ~right


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector for the tokens of each text, which are padded on the right.

    Args:
        hidden: (N, T, D).
        mask: (N, T), 1 for a token.
        pooling: as `task.pooling`.

    Returns:
        (N, D).
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        last = mask.sum(dim=1).clamp(min=1) - 1
        return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)
    if pooling == "max":
        return hidden.masked_fill(mask[..., None] == 0, -torch.inf).amax(dim=1)
    # The order of a sum depends on how long the longest text is. In float64 its rounding is lost in that to float32, so
    # that a text has the same vector, to the last bit, alone and in a batch.
    there = mask[..., None].double()
    return ((hidden.double() * there).sum(dim=1) / there.sum(dim=1).clamp(min=1.0)).float()
