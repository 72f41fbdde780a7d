"""Losses of vectors, which pull texts together that belong together. Each is a mean over its rows or pairs.

All of them equal those of sentence-transformers 6.2, which tests/tasks/test_embedding_losses.py compares, except that
texts which are repeated in a batch are no wrong answers here.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

Tensor = torch.Tensor


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """The cosine of each row (N, D) with each column (M, D): (N, M)."""
    return functional.normalize(rows, dim=-1) @ functional.normalize(columns, dim=-1).T


def in_batch(
    anchors: Tensor, positives: Tensor, negatives: Tensor, wrong: Tensor, scale: float, symmetric: bool
) -> Tensor:
    """Cross entropy of the right text among all texts of a batch (Henderson et al. 2017, arXiv:1705.00652).

    Args:
        anchors: (B, D).
        positives: (B, D), the right text of each.
        negatives: (M, D), further texts, wrong for all.
        wrong: (B, B + M), whether a text is a wrong answer; false for the right one.
        scale: what cosines are multiplied by.
        symmetric: also the cross entropy of the right anchor of each text; the mean of both.
    """
    right = torch.arange(len(anchors), device=anchors.device)
    logits = scale * cosines(anchors, torch.cat([positives, negatives]))
    allowed = wrong.clone()
    allowed[right, right] = True
    logits = logits.masked_fill(~allowed, -torch.inf)
    loss = functional.cross_entropy(logits, right)
    if symmetric:
        loss = (loss + functional.cross_entropy(logits[:, : len(anchors)].T, right)) / 2
    return loss


def triplet(anchors: Tensor, positives: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """How much less than `margin` a wrong text is farther away than the right one (Schroff et al. 2015)."""
    near, far = ((anchors - texts).norm(dim=-1) for texts in (positives, negatives))
    return functional.relu(near - far + margin).mean()


def cosine(first: Tensor, second: Tensor, scores: Tensor) -> Tensor:
    """The squared error of the cosine of two texts, given what it should be (Reimers & Gurevych 2019)."""
    return functional.mse_loss(functional.cosine_similarity(first, second), scores)


def cosent(first: Tensor, second: Tensor, scores: Tensor, scale: float) -> Tensor:
    """log(1 + sum of exp(scale * (cosine of a - cosine of b))) over pairs a whose score is below that of b.

    Source: Su 2022, https://kexue.fm/archives/8847.
    """
    cosine = scale * functional.cosine_similarity(first, second)
    apart = cosine[:, None] - cosine[None]  # (B, B)
    apart = apart.masked_fill(scores[:, None] >= scores[None], -torch.inf).flatten()
    return torch.logsumexp(torch.cat([apart.new_zeros(1), apart]), dim=0)


def batch_hard(vectors: Tensor, labels: Tensor, margin: float) -> Tensor:
    """`triplet` of each text with the farthest of its class and the nearest of another (Hermans et al. 2017).

    A batch of a single class has no wrong text, and its loss is a constant.
    """
    squares = vectors.square().sum(dim=-1)
    squared = (squares[:, None] + squares[None] - 2 * vectors @ vectors.T).clamp(min=0)
    zero = squared == 0
    # The gradient of a root at 0 is infinite.
    apart = torch.where(zero, 0.0, (squared + 1e-16 * zero).sqrt())
    same = labels[:, None] == labels[None]
    far = (apart * (same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device))).amax(dim=1)
    near = (apart + apart.amax(dim=1, keepdim=True) * same).amin(dim=1)
    return functional.relu(far - near + margin).mean()


def supervised_contrastive(vectors: Tensor, labels: Tensor, scale: float) -> Tensor:
    """The mean over texts of -mean log p of the others of their class (Khosla et al. 2020, arXiv:2004.11362, eq. 2).

    Texts without another one of their class in the batch are left out; the loss of a batch of such texts is 0.
    """
    self_ = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    logits = (scale * cosines(vectors, vectors)).masked_fill(self_, -torch.inf)
    logs = (logits - torch.logsumexp(logits, dim=1, keepdim=True)).masked_fill(self_, 0.0)
    same = (labels[:, None] == labels[None]) & ~self_
    counts = same.sum(dim=1)
    each = -(logs * same).sum(dim=1) / counts.clamp(min=1)
    return each.sum() / (counts > 0).sum().clamp(min=1)


def matryoshka(vectors: Tensor, sizes: list[int], loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The sum of a loss over the first values of each vector, at length 1 (Kusupati et al. 2022, arXiv:2205.13147)."""
    found = [loss(functional.normalize(vectors[..., :size], dim=-1)) for size in sizes]
    return torch.stack(found).sum()
