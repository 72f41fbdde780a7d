"""Ranked lists: values worked out by hand, the order of ties, and what must not change with the largest k."""

import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from llmft.metrics.ranking_metrics import NONE, graded_ndcg, list_metrics, ranking_metrics, top_k
from llmft.schema.metric import METRICS
from llmft.schema.problem import Failure

LOG3 = 1 / math.log2(3)

# Hits by rank, relevant items, k -> hit rate, recall, precision, NDCG, MRR, MAP
TABLE = [
    ("a hit at rank 1", [1, 0, 0], 1, 3, (1, 1, 1 / 3, 1, 1, 1)),
    ("a hit at rank 2", [0, 1, 0], 1, 3, (1, 1, 1 / 3, LOG3, 1 / 2, 1 / 2)),
    ("a hit beyond k", [0, 0, 1], 1, 2, (0, 0, 0, 0, 0, 0)),
    ("two of four", [1, 0, 1], 4, 3, (1, 1 / 2, 2 / 3, 1.5 / (1 + LOG3 + 0.5), 1, (1 + 2 / 3) / 3)),
    ("more relevant than k", [1, 1, 0], 5, 2, (1, 2 / 5, 1, 1, 1, 1)),
    ("fewer items than k", [0, 1], 1, 5, (1, 1, 1 / 5, LOG3, 1 / 2, 1 / 2)),
    ("an item that cannot be listed", [1], 2, 1, (1, 1 / 2, 1, 1, 1, 1)),
]
NAMES = ("hit_rate", "recall", "precision", "ndcg", "mrr", "map")


@pytest.mark.parametrize(
    ("hits", "relevant", "k", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_metrics_of_one_list(hits: list[int], relevant: int, k: int, expected: tuple[float, ...]) -> None:
    found = ranking_metrics(numpy.array([hits]), numpy.array([relevant]), [k], prefix="own_")
    assert found == pytest.approx({f"own_{name}@{k}": value for name, value in zip(NAMES, expected, strict=True)})


def test_users_without_a_relevant_item_are_in_no_mean() -> None:
    hits = numpy.array([[True, False], [False, False], [False, False]])
    assert ranking_metrics(hits, numpy.array([1, 0, 1]), [2])["hit_rate@2"] == 0.5
    assert ranking_metrics(hits[1:2], numpy.array([0]), [2]) == {}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_no_metric_depends_on_the_largest_k(seed: int) -> None:
    rng = numpy.random.default_rng(seed)
    scores = rng.integers(0, 4, (5, 12)).astype(numpy.float32)  # of few values, so that most of them tie
    counts = rng.integers(0, 3, 12)
    right = rng.random((5, 12)) < 0.3
    found = []
    for largest in (3, 5, 12, 20):
        ids, _ = top_k(scores, largest, counts)
        hits = numpy.take_along_axis(right, ids, axis=1)
        metrics = ranking_metrics(hits, right.sum(axis=1), sorted({3, largest}))
        metrics |= list_metrics(ids, counts, 5, sorted({3, largest}), right.T.astype(float))
        found.append({name: value for name, value in metrics.items() if name.endswith("@3")})
    assert found[1:] == found[:-1]
    assert found[0]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_ties_are_ordered_by_score_then_count_then_id(seed: int) -> None:
    rng = numpy.random.default_rng(seed)
    scores, counts = rng.integers(0, 3, (4, 9)).astype(numpy.float32), rng.integers(0, 3, 9)
    scores[rng.random((4, 9)) < 0.3] = -numpy.inf
    ids, best = top_k(scores, 5, counts)
    for row in range(4):
        allowed = [item for item in range(9) if scores[row, item] > -numpy.inf]
        expected = sorted(allowed, key=lambda item: (-scores[row, item], -counts[item], item))[:5]
        assert [item for item in ids[row] if item != NONE] == expected
        assert (ids[row] == NONE).sum() == 5 - len(expected)
        assert all(best[row, : len(expected)] == scores[row, expected])


def test_a_score_that_is_nan_stops() -> None:
    with pytest.raises(Failure, match="1 of 2 rows have a score that is NaN"):
        top_k(numpy.array([[1.0, numpy.nan], [1.0, 2.0]]), 1)


def test_graded_ndcg_is_that_of_scikit_learn() -> None:
    rng = numpy.random.default_rng(0)
    gains, scores = rng.integers(0, 4, (30, 15)).astype(float), rng.random((30, 15))
    order = numpy.argsort(-scores, axis=1)
    for k in (1, 5, 15):
        found = graded_ndcg(numpy.take_along_axis(gains, order, axis=1), gains, [k])[f"ndcg@{k}"]
        assert found == pytest.approx(ndcg_score(gains, scores, k=k))


def test_what_is_listed() -> None:
    """Two lists of two among four items: 0 and 1, 0 and 2."""
    ids, counts = numpy.array([[0, 1], [0, 2]]), numpy.array([3, 1, 0, 0])
    vectors = numpy.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = list_metrics(ids, counts, 3, [1, 2], vectors)
    assert found["coverage@1"] == 1 / 4
    assert found["coverage@2"] == 3 / 4
    assert found["gini@1"] == pytest.approx(3 / 4)  # one of four has everything: 1 - 1/4
    assert found["gini@2"] == pytest.approx((-3 * 0 - 1 + 1 + 3 * 2) / (4 * 4))
    assert found["average_popularity@2"] == pytest.approx(((3 + 1) / 2 + (3 + 0) / 2) / 2)
    assert found["novelty@2"] == pytest.approx((0 + 1) / 4 + (0 + 2) / 4)
    assert found["diversity@2"] == pytest.approx((0 + 1) / 2)
    assert "diversity@1" not in found


def test_a_short_list_counts_what_it_has() -> None:
    found = list_metrics(numpy.array([[1, NONE], [NONE, NONE]]), numpy.array([0, 1]), 1, [2], numpy.eye(2))
    assert found == {"coverage@2": 0.5, "gini@2": 0.5, "novelty@2": 0.0, "average_popularity@2": 1.0}


def test_the_vocabulary_knows_every_k() -> None:
    assert METRICS["ndcg@10"] and METRICS["ndcg@5"] and METRICS["hit_rate@100"] and not METRICS["gini@7"]
    assert "ndcg@3" in METRICS
    assert "ndcg@0" not in METRICS and "ndcg@x" not in METRICS and "accuracy@5" not in METRICS
