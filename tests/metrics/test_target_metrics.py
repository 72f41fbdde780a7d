"""Scores of several labels, of numbers and of scores themselves, worked out by hand."""

import numpy
import pytest

from llmft.metrics.calibration import SHOWN, WHOLE, calibration, confusion, most_confused
from llmft.metrics.target_metrics import MultiLabelClassification, RegressionErrors


def test_several_labels_by_hand() -> None:
    """Right: ab, a, -, b; said: a, ab, -, c. By label: a 2 of 2; b 0 of 1 said, 0 of 2; c 0 of 1 said."""
    found = MultiLabelClassification(["a", "b", "c", "d"]).compute(
        predictions=[["a"], ["a", "b"], [], ["c"]],
        references=[["a", "b"], ["a"], [], ["b"]],
        scores=[[0.9, 0.4, 0.1, 0], [0.8, 0.6, 0.2, 0], [0.1, 0.2, 0.3, 0], [0.3, 0.3, 0.7, 0]],
    )
    assert found["subset_accuracy"] == 0.25
    assert found["hamming_loss"] == 4 / 16
    assert (found["precision_micro"], found["recall_micro"]) == (2 / 4, 2 / 4)
    assert (found["precision"], found["recall"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found["f1"] == pytest.approx((1 + 0 + 0) / 3)
    # By row: 1 of 1 said, 1 of 2; 1 of 2 said, 1 of 1; nothing right, nothing said; 0 of 1 said.
    assert found["precision_samples"] == pytest.approx((1 + 1 / 2 + 1 + 0) / 4)
    assert found["recall_samples"] == pytest.approx((1 / 2 + 1 + 1 + 0) / 4)
    assert found["f1_samples"] == pytest.approx((2 / 3 + 2 / 3 + 1 + 0) / 4)
    assert found["roc_auc"] is None  # no row has c or d
    assert found["per_class"]["b"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}


def test_the_curve_of_several_labels_is_the_mean() -> None:
    """a: 0.9 and 0.8 above 0.1 and 0.3; b: right 0.4 and 0.3, others 0.6 and 0.2: 2 of 4 pairs are in order."""
    found = MultiLabelClassification(["a", "b"]).compute(
        predictions=[[], [], [], []],
        references=[["a", "b"], ["a"], [], ["b"]],
        scores=[[0.9, 0.4], [0.8, 0.6], [0.1, 0.2], [0.3, 0.3]],
    )
    assert found["roc_auc"] == pytest.approx((1 + 2 / 4) / 2)


def test_rows_without_labels_that_get_none_are_right() -> None:
    found = MultiLabelClassification(["a", "b"]).compute(
        predictions=[[], []], references=[[], []], scores=[[0.1, 0.1], [0.2, 0.2]]
    )
    assert (found["subset_accuracy"], found["f1_samples"], found["hamming_loss"], found["f1"]) == (1.0, 1.0, 0.0, 0.0)


def test_numbers_by_hand() -> None:
    """Errors 1, -1, 2, 0; the right ones 1 2 3 6 have mean 3 and squares 4 1 0 9 around it."""
    found = RegressionErrors().compute(predictions=[2.0, 1.0, 5.0, 6.0], references=[1.0, 2.0, 3.0, 6.0])
    assert found["mse"] == pytest.approx(6 / 4)
    assert found["rmse"] == pytest.approx((6 / 4) ** 0.5)
    assert found["mae"] == 1.0
    assert found["r2"] == pytest.approx(1 - 6 / 14)
    # Said 2 1 5 6: mean 3.5, deviations -1.5 -2.5 1.5 2.5; with -2 -1 0 3: 3 + 2.5 + 0 + 7.5 = 13; squares 17.
    assert found["pearson"] == pytest.approx(13 / (17 * 14) ** 0.5)
    assert found["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))  # two ranks are off by one


@pytest.mark.parametrize(
    ("said", "right", "none"),
    [
        ([1.0, 1.0], [1.0, 2.0], {"pearson", "spearman"}),
        ([1.0, 2.0], [3.0, 3.0], {"pearson", "spearman", "r2"}),
        ([1.0], [1.0], {"pearson", "spearman", "r2"}),
    ],
)
def test_what_numbers_can_not_say(said: list[float], right: list[float], none: set[str]) -> None:
    found = RegressionErrors().compute(predictions=said, references=right)
    assert {name for name, value in found.items() if value is None} == none


def test_calibration_by_hand() -> None:
    """Bins of 1/15: 0.95 0.96 0.97 0.98 share the last, three of four right; 0.61 and 0.65 the tenth, none right."""
    scores = numpy.array([0.95, 0.96, 0.97, 0.98, 0.61, 0.65])
    error, bins = calibration(scores, numpy.array([1, 1, 1, 0, 0, 0]))
    assert error == pytest.approx(4 / 6 * abs(0.965 - 0.75) + 2 / 6 * 0.63)
    assert [(b["rows"], b["right"]) for b in bins] == [(2, 0.0), (4, 0.75)]
    assert calibration(numpy.array([0.0, 1.0]), numpy.array([0, 1]))[0] == 0.0


def test_a_confusion_of_many_labels_is_cut_to_the_most_confused() -> None:
    labels = [f"l{number:03}" for number in range(1000)]
    references = [*labels, "l007", "l007", "l900"]
    predictions = [*labels, "l500", "l500", "l007"]
    found = confusion(references, predictions, labels)
    assert (len(found["labels"]), found["of"]) == (SHOWN, 1000)
    assert found["labels"] == sorted(found["labels"])
    assert {"l007", "l500", "l900"} <= set(found["labels"])
    place = found["labels"].index
    assert found["matrix"][place("l007")][place("l500")] == 2
    assert found["matrix"][place("l900")][place("l007")] == 1
    fewer = confusion(references[:WHOLE], predictions[:WHOLE], labels[:WHOLE])
    assert "of" not in fewer
    assert len(most_confused(fewer)["labels"]) == SHOWN
