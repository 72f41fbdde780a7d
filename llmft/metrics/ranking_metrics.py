"""Metrics of ranked lists: what an embedding retrieves, a reranker orders, or a recommender proposes.

A list has the best item first. Its first k items decide a metric at k, so that no metric depends on the largest k that
was asked for. All means are over the queries or users that have something relevant. It needs numpy and scipy alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy
from scipy.sparse import csr_matrix, diags

from llmft.schema.problem import Failure

NONE = -1
"""The id where fewer than k items can be listed."""


def top_k(scores: numpy.ndarray, k: int, counts: numpy.ndarray | None = None) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The k best items of each row, in the order that evaluation and predict share.

    The higher score comes first. Equal scores are ordered by the higher count, then by the lower id: an order by
    memory, as in `torch.topk`, changes with k and with the machine.

    Args:
        scores: (n, items). -inf for an item that must not be listed.
        k: how many to list.
        counts: (items,), how often each item occurs in the training rows. None: all equally often.

    Returns:
        the ids (n, min(k, items)) int64, NONE where fewer items can be listed, and their scores, -inf there.

    Raises:
        Failure: if a score is NaN.
    """
    refuse_nan(scores)
    n, items = scores.shape
    k = min(k, items)
    if k == 0 or n == 0:
        return numpy.empty((n, k), dtype=numpy.int64), numpy.empty((n, k), dtype=scores.dtype)
    if k < items:
        # `argpartition` takes a fifth of the time of a sort, and leaves to chance which of the items with the k-th
        # score are among the first k.
        ids = numpy.argpartition(-scores, k - 1, axis=1)[:, :k]
        border = numpy.take_along_axis(scores, ids, axis=1).min(axis=1)
        for row in numpy.flatnonzero(((scores >= border[:, None]).sum(axis=1) > k) & (border > -numpy.inf)):
            ids[row] = _best_of(numpy.flatnonzero(scores[row] >= border[row]), scores[row], counts, k)
    else:
        ids = numpy.broadcast_to(numpy.arange(items), (n, items))
    return in_order(ids, numpy.take_along_axis(scores, ids, axis=1), counts)


def in_order(
    ids: numpy.ndarray, scores: numpy.ndarray, counts: numpy.ndarray | None = None
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Lists (n, k) of ids and their scores in the order of `top_k`; NONE where a score is -inf."""
    popular = numpy.zeros_like(ids) if counts is None else counts[ids]
    order = numpy.lexsort((ids, -popular, -scores), axis=1)
    ids, scores = numpy.take_along_axis(ids, order, axis=1), numpy.take_along_axis(scores, order, axis=1)
    return numpy.where(scores == -numpy.inf, NONE, ids), scores


def refuse_nan(scores: numpy.ndarray) -> None:
    """Raise Failure if a score is NaN: every comparison with it is false, so that a list would say nothing."""
    if numpy.isnan(scores).any():
        what = f"{int(numpy.isnan(scores).any(axis=1).sum()):,} of {len(scores):,} rows have a score that is NaN"
        raise Failure(f"{what}. The model cannot rank them. Lower optimizer.lr, or look for values that overflow.")


def _best_of(ids: numpy.ndarray, scores: numpy.ndarray, counts: numpy.ndarray | None, k: int) -> numpy.ndarray:
    popular = numpy.zeros(len(ids)) if counts is None else counts[ids]
    return ids[numpy.lexsort((ids, -popular, -scores[ids]))[:k]]


def ranking_metrics(
    hits: numpy.ndarray, relevant: numpy.ndarray, ks: Sequence[int], prefix: str = ""
) -> dict[str, float]:
    """Metrics of lists in which an item is relevant or is not.

    `hit_rate@k`: the share of lists with a relevant item among the first k. `recall@k`: the share of the relevant items
    that are among them. `precision@k`: their number divided by k, even if fewer than k items exist (trec_eval).
    `ndcg@k`: gain 1, discount 1 / log2(rank + 1), relative to the best possible list (Järvelin & Kekäläinen 2002).
    `mrr@k`: 1 / the rank of the first relevant item, 0 beyond k. `map@k`: the sum of the precisions at the relevant
    items divided by min(k, their number), which trec_eval divides by their number.

    Args:
        hits: (users, K) bool, whether the item at each rank is relevant. Ranks beyond K have no item.
        relevant: (users,) the number of relevant items, those that cannot be listed included. Users without one are
            left out of all means.
        ks: the k of each metric.
        prefix: put in front of each name.

    Returns:
        `hit_rate@k`, ... for each k; nothing if no user has a relevant item.
    """
    relevant = numpy.asarray(relevant)
    hits, relevant = numpy.asarray(hits, dtype=bool)[relevant > 0], relevant[relevant > 0]
    if not len(relevant):
        return {}
    width = max(*ks, hits.shape[1])
    hits = numpy.pad(hits, ((0, 0), (0, width - hits.shape[1])))
    ranks = numpy.arange(1, width + 1)
    precisions = numpy.cumsum(hits, axis=1) / ranks
    found: dict[str, float] = {}
    for k in ks:
        own, most = hits[:, :k], numpy.minimum(relevant, k)
        shared = own.sum(axis=1)
        first = numpy.where(shared > 0, 1.0 / (own.argmax(axis=1) + 1), 0.0)
        each = {
            "hit_rate": shared > 0,
            "recall": shared / relevant,
            "precision": shared / k,
            "ndcg": ndcg(own, most),
            "mrr": first,
            "map": (precisions[:, :k] * own).sum(axis=1) / most,
        }
        found |= {f"{prefix}{name}@{k}": float(numpy.mean(values)) for name, values in each.items()}
    return found


def ndcg(hits: numpy.ndarray, most: numpy.ndarray) -> numpy.ndarray:
    """The NDCG of each list, (users,).

    Args:
        hits: (users, k), whether the item at each rank is relevant.
        most: (users,), at least 1: how many of the k could be.
    """
    discounts = 1.0 / numpy.log2(numpy.arange(2, hits.shape[1] + 2))
    return (hits * discounts).sum(axis=1) / numpy.cumsum(discounts)[most - 1]


def graded_ndcg(gains: numpy.ndarray, ideal: numpy.ndarray, ks: Sequence[int], prefix: str = "") -> dict[str, float]:
    """`ndcg@k` where items are more or less relevant, with linear gains as in scikit-learn and trec_eval.

    Args:
        gains: (users, K), the gain of the item at each rank, at least 0.
        ideal: (users, M), the gains of all judged items in any order, padded with 0. Users without a gain above 0 are
            left out of the means.
    """
    judged = ideal.max(axis=1, initial=0) > 0
    gains, ideal = gains[judged], -numpy.sort(-ideal[judged], axis=1)
    if not len(gains):
        return {}
    found = {}
    for k in ks:
        sums = [
            (part[:, :k] / numpy.log2(numpy.arange(2, min(k, part.shape[1]) + 2))).sum(axis=1)
            for part in (gains, ideal)
        ]
        found[f"{prefix}ndcg@{k}"] = float(numpy.mean(sums[0] / sums[1]))
    return found


def list_metrics(
    ids: numpy.ndarray,
    counts: numpy.ndarray,
    users: int,
    ks: Sequence[int],
    vectors: Any = None,
) -> dict[str, float]:
    """Metrics of what is listed, whether or not it is relevant.

    `coverage@k`: the share of the catalog that some list has (Ge et al. 2010). `gini@k`: the Gini coefficient of how
    often each item of the catalog is listed, 0 if all are listed equally often (Fleder & Hosanagar 2009).
    `novelty@k`: the mean of -log2((count + 1) / (users + 1)) (Zhou et al. 2010); the 1 keeps an item without training
    rows finite. `average_popularity@k`: the mean count (Yin et al. 2012). `diversity@k`: 1 - the mean cosine of the
    pairs of a list (Ziegler et al. 2005).

    Args:
        ids: (n, K), NONE where a list is shorter.
        counts: (items,) of the catalog, training rows of each item.
        users: the number of users in the training rows.
        vectors: (items, d), dense or sparse, what items are compared by for `diversity`. None: without it.
    """
    found: dict[str, float] = {}
    novel = -numpy.log2((counts + 1) / (users + 1))
    unit = None if vectors is None else _unit(vectors)
    for k in ks:
        own = ids[:, :k]
        own = own[(own != NONE).any(axis=1)]
        there = own != NONE
        if not len(own):
            continue
        listed = numpy.sort(numpy.bincount(own[there], minlength=len(counts)))
        place = numpy.arange(1, len(listed) + 1)
        gini = ((2 * place - len(listed) - 1) * listed).sum() / (len(listed) * listed.sum())
        lengths = there.sum(axis=1)
        means = [float(numpy.mean((values[own] * there).sum(axis=1) / lengths)) for values in (novel, counts)]
        found |= {f"coverage@{k}": float((listed > 0).mean()), f"gini@{k}": float(gini)}
        found |= dict(zip((f"novelty@{k}", f"average_popularity@{k}"), means, strict=True))
        if unit is not None and (several := lengths > 1).any():
            # The squared norm of the sum of a list has every pair twice, and each vector with itself once.
            rows = numpy.repeat(numpy.arange(len(own)), lengths)
            lists = csr_matrix((numpy.ones(len(rows)), (rows, own[there])), shape=(len(own), len(counts)))
            whole = (lists @ unit).power(2).sum(axis=1).A1
            alone = (lists @ unit.power(2)).sum(axis=1).A1
            pairs = (whole - alone)[several] / (lengths * (lengths - 1))[several]
            found[f"diversity@{k}"] = float(numpy.mean(1 - pairs))
    return found


def _unit(vectors: Any) -> csr_matrix:
    """Vectors of length 1, of those that are not 0."""
    found = csr_matrix(vectors, dtype=numpy.float64)
    norms = numpy.sqrt(found.power(2).sum(axis=1).A1)
    return diags(1 / numpy.maximum(norms, 1e-12)) @ found
