"""Which vectors are nearest to others, by their cosine, and what such lists are worth. numpy alone."""

from collections.abc import Sequence
from typing import Any

import numpy

from llmft.metrics.ranking_metrics import in_order, ndcg, ranking_metrics, top_k

KS = (1, 5, 10, 20)
"""The k of the metrics."""
QUERIES = 64
PASSAGES = 50_000
"""How many are compared at once: 13 MB of cosines in float32."""


def unit(vectors: numpy.ndarray) -> numpy.ndarray:
    """The vectors (..., D) at length 1; a vector of zeros stays."""
    return vectors / numpy.maximum(numpy.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def nearest(
    queries: numpy.ndarray, passages: numpy.ndarray, k: int, alone: bool = False
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The k passages with the largest cosine for each query, equal ones by their order.

    Args:
        queries: (n, D).
        passages: (m, D).
        alone: whether the queries are the passages, and none is its own answer.

    Returns:
        the indices (n, min(k, m)) and their cosines.

    Raises:
        Failure: if a vector is not a number.
    """
    queries, passages = unit(queries.astype(numpy.float32)), unit(passages.astype(numpy.float32))
    ids, cosines = [], []
    for start in range(0, len(queries), QUERIES):
        part = queries[start : start + QUERIES]
        best: list[tuple[numpy.ndarray, numpy.ndarray]] = []
        for first in range(0, len(passages), PASSAGES):
            scores = part @ passages[first : first + PASSAGES].T
            if alone:
                own = numpy.arange(start, start + len(part)) - first
                inside = (own >= 0) & (own < scores.shape[1])
                scores[numpy.flatnonzero(inside), own[inside]] = -numpy.inf
            places, found = top_k(scores, k)
            best.append((places + first * (places >= 0), found))
        places, found = (numpy.concatenate(each, axis=1) for each in zip(*best, strict=True))
        places, found = (places, found) if len(best) == 1 else in_order(places, found)
        ids.append(places[:, :k])
        cosines.append(found[:, :k])
    return numpy.concatenate(ids), numpy.concatenate(cosines)


def ranked(answers: Sequence[dict[str, Any]], ks: Sequence[int]) -> dict[str, float]:
    """The metrics of answers with `ranks`, those of the relevant items, and `relevant`, their number."""
    once = [answer for answer in answers if not answer.get("repeated")]
    hits = numpy.zeros((len(once), max(ks)), dtype=bool)
    for row, answer in enumerate(once):
        hits[row, [rank - 1 for rank in answer["ranks"] if rank <= max(ks)]] = True
    return ranking_metrics(hits, numpy.array([answer["relevant"] for answer in once]), ks)


def gain(answer: dict[str, Any], k: int) -> float:
    """The NDCG@k of one such answer."""
    hits = numpy.zeros((1, k), dtype=bool)
    hits[0, [rank - 1 for rank in answer["ranks"] if rank <= k]] = True
    return float(ndcg(hits, numpy.minimum([answer["relevant"]], k))[0]) if answer["relevant"] else 0.0


def texts_of(cell: Any) -> Sequence[str]:
    """The texts of a cell: none, one, or a list."""
    return [] if cell is None else [cell] if isinstance(cell, str) else [text for text in cell if text]
