"""Scores that can be worked out by hand."""

import pytest

from llmft.metrics.target_metrics import Classification


def test_three_classes_by_hand() -> None:
    """Right: a a b c; said: a b b b. Precision a 1, b 1/3, c 0; recall a 1/2, b 1, c 0."""
    scores = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.5, 0.4]]
    found = Classification(["a", "b", "c"]).compute(
        predictions=["a", "b", "b", "b"], references=["a", "a", "b", "c"], scores=scores
    )
    assert found["accuracy"] == 0.5
    assert found["precision"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert found["recall"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["precision_micro"] == found["recall_micro"] == found["f1_micro"] == 0.5
    # a: 4 of 4 pairs in order; b: right 0.7, others 0.1 0.6 0.5: 3 of 3; c: right 0.4, others 0.1 0.1 0.1: 3 of 3.
    assert found["roc_auc"] == pytest.approx(1.0)
    # Gorodkin 2004: (c s - sum p t) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)) with c=2, s=4, p=(1,3,0), t=(2,1,1).
    assert found["matthews"] == pytest.approx((2 * 4 - (2 + 3 + 0)) / ((16 - 10) * (16 - 6)) ** 0.5)
    assert found["per_class"]["b"] == {"precision": pytest.approx(1 / 3), "recall": 1.0, "f1": 0.5, "support": 1}
    assert found["confusion"] == {"labels": ["a", "b", "c"], "matrix": [[1, 1, 0], [0, 1, 0], [0, 1, 0]]}


def test_two_classes_have_one_curve() -> None:
    """Scores of `yes`: right 0.9 0.4, others 0.5 0.1: 3 of 4 pairs are in order."""
    yes = [0.9, 0.4, 0.5, 0.1]
    found = Classification(["no", "yes"]).compute(
        predictions=["yes", "no", "no", "no"], references=["yes", "yes", "no", "no"], scores=[[1 - p, p] for p in yes]
    )
    assert found["roc_auc"] == 0.75
    assert found["matthews"] == pytest.approx((1 * 2 - 0 * 1) / (1 * 2 * 2 * 3) ** 0.5)


def test_a_class_without_examples_counts_for_nothing() -> None:
    found = Classification(["a", "b", "c"]).compute(
        predictions=["a", "b"], references=["a", "b"], scores=[[1, 0, 0], [0, 1, 0]]
    )
    assert (found["f1"], found["roc_auc"]) == (1.0, None)
    assert list(found["per_class"]) == ["a", "b"]


def test_one_class_only_has_no_curve() -> None:
    found = Classification(["a", "b"]).compute(
        predictions=["a", "b"], references=["a", "a"], scores=[[0.9, 0.1], [0.2, 0.8]]
    )
    assert (found["roc_auc"], found["matthews"], found["accuracy"]) == (None, 0.0, 0.5)
