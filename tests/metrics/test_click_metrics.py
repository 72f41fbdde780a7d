"""Metrics of clicks beside scikit-learn's, and where theirs stop."""

import math

import numpy
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from llmft.metrics.click_metrics import auc, click_metrics, gauc
from llmft.schema.problem import Failure


@pytest.mark.parametrize("seed", range(5))
def test_auc_and_log_loss_are_scikit_learns(seed: int) -> None:
    rng = numpy.random.default_rng(seed)
    logits = rng.normal(size=300).round(seed)  # of seed 0 nearly all are ties
    clicks = rng.random(300) < 0.3
    found = click_metrics(logits, clicks)
    assert found["auc"] == pytest.approx(roc_auc_score(clicks, logits), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(clicks, 1 / (1 + numpy.exp(-logits))), abs=1e-12)
    assert "gauc" not in found


@pytest.mark.parametrize("seed", range(5))
def test_gauc_is_the_mean_of_scikit_learns_auc_by_user(seed: int) -> None:
    rng = numpy.random.default_rng(seed)
    scores, clicks = rng.normal(size=200).round(1), rng.random(200) < 0.4
    users = [f"u{number}" if number else None for number in rng.integers(0, 40, 200)]
    parts = []
    for user in {*users} - {None}:
        own = numpy.array([other == user for other in users])
        if len({*clicks[own].tolist()}) == 2:
            parts.append((roc_auc_score(clicks[own], scores[own]), int(own.sum())))
    value, count, share = gauc(scores, clicks, users)
    assert value == pytest.approx(sum(a * n for a, n in parts) / sum(n for _, n in parts), abs=1e-12)
    assert count == len(parts)
    assert share == pytest.approx(sum(n for _, n in parts) / 200), "of all rows"


def test_gauc_by_hand() -> None:
    """Of a, the click is above one of two; b has a tie; c has clicks alone, and d no row of one."""
    scores = numpy.array([0.2, 0.1, 0.3, 5.0, 5.0, 1.0, 1.0])
    clicks = numpy.array([True, False, False, True, False, True, False])
    value, count, share = gauc(scores, clicks, [*"aaabbcd"])
    assert value == pytest.approx((3 * 0.5 + 2 * 0.5) / 5)
    assert (count, share) == (2, 5 / 7)
    assert gauc(scores[5:], clicks[5:], ["c", "d"]) == (None, 0, 0.0)
    assert gauc(scores[5:], clicks[5:], [None, None]) == (None, 0, 0.0)


def test_logits_are_ranked_where_probabilities_are_all_one() -> None:
    logits, clicks = numpy.array([40.0, 41.0]), numpy.array([False, True])
    assert auc(1 / (1 + numpy.exp(-logits)), clicks) == 0.5
    found = click_metrics(logits, clicks)
    assert found["auc"] == 1
    assert found["log_loss"] == pytest.approx(20)
    sure = click_metrics(numpy.array([-1000.0, 1000.0]), clicks[::-1])
    assert sure["log_loss"] == 1000, "not clipped: scikit-learn would say 36.04"


def test_calibration_is_of_the_click() -> None:
    """Three rows of a probability of a half, of which one is a click; one of nearly 1, which is one."""
    found = click_metrics(numpy.array([0.0, 0.0, 0.0, 30.0]), numpy.array([True, False, False, True]))
    assert found["ece"] == pytest.approx(3 / 4 * (1 / 2 - 1 / 3))
    assert found["click_rate"] == {"score": pytest.approx(2.5 / 4), "clicks": 0.5}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_stops_an_evaluation(bad: float) -> None:
    with pytest.raises(Failure, match="1 of 2 scores are not finite"):
        click_metrics(numpy.array([bad, 1.0]), numpy.array([True, False]))


def test_of_one_class_there_is_no_auc() -> None:
    found = click_metrics(numpy.array([0.5, 1.0]), numpy.array([True, True]), ["a", "b"])
    assert found["auc"] is None
    assert (found["gauc"], found["gauc_users"]) == (None, 0)
    assert found["log_loss"] > 0
