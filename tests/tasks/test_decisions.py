"""Thresholds and temperatures, against a search of all there are and against what made the data."""

import numpy
import pytest
from sklearn import metrics

from llmft.schema.problem import UserError
from llmft.tasks.targets.config import TargetConfig
from llmft.tasks.targets.decisions import OF_EACH, OF_TWO, sigmoid, softmax, threshold
from llmft.tasks.targets.multi_label import MultiLabel
from llmft.tasks.targets.single_label import SingleLabel

MEASURES = {
    "f1": lambda truth, said: metrics.f1_score(truth, said, zero_division=0),
    "accuracy": metrics.accuracy_score,
    "matthews": metrics.matthews_corrcoef,
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("seed", range(5))
def test_a_threshold_is_the_best_there_is(name: str, seed: int) -> None:
    rng = numpy.random.default_rng(seed)
    truth = rng.random(60) < 0.3
    scores = numpy.round(numpy.clip(rng.normal(0.3 + 0.2 * truth, 0.2), 0, 1), 2)  # some are equal
    found = MEASURES[name](truth, scores >= threshold(scores, truth, OF_EACH[name]))
    cuts = [*numpy.unique(scores)[1:]]
    assert found == pytest.approx(max(MEASURES[name](truth, scores >= cut) for cut in cuts))


def test_f1_of_two_labels_is_the_mean_of_both() -> None:
    rng = numpy.random.default_rng(0)
    truth = rng.random(80) < 0.2
    scores = sigmoid(rng.normal(truth - 1.0, 1.0))
    said = scores >= threshold(scores, truth, OF_TWO["f1"])
    best = max(metrics.f1_score(truth, scores >= cut, average="macro") for cut in numpy.unique(scores)[1:])
    assert metrics.f1_score(truth, said, average="macro") == pytest.approx(best)


@pytest.mark.parametrize(("scores", "truth", "expected"), [
    ([0.1, 0.4, 0.7, 0.9], [False, False, True, True], 0.55),
    ([0.1, 0.2, 0.3, 0.9], [False, True, True, True], 0.15),
    ([0.2, 0.6], [True, True], 0.5),
    ([0.2, 0.6], [False, False], 0.5),
    ([0.3, 0.3], [False, True], 0.5),
])  # fmt: skip
def test_a_threshold_lies_between_two_scores(scores: list[float], truth: list[bool], expected: float) -> None:
    assert threshold(numpy.array(scores), numpy.array(truth), OF_EACH["f1"]) == pytest.approx(expected)


def test_the_temperature_of_one_label_is_found_again() -> None:
    """Labels drawn by the softmax of z, and a model that says 3 z: its temperature is 3."""
    rng = numpy.random.default_rng(1)
    logits = rng.normal(0, 1.5, (4000, 3))
    drawn = (softmax(logits).cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    labels = [("a", "b", "c")[number] for number in drawn]
    target = SingleLabel(["a", "b", "c"]).calibrate(3 * logits, labels, TargetConfig(calibrate=True))
    assert target.temperature == pytest.approx(3, rel=0.05)
    answers = target.decode(3 * logits)
    assert list(answers[0]["scores"].values()) == pytest.approx(softmax(3 * logits[:1] / target.temperature)[0])
    found = target.score(answers, labels)
    plain = SingleLabel(["a", "b", "c"])
    assert found["ece_uncalibrated"] == pytest.approx(plain.score(plain.decode(3 * logits), labels)["ece"])
    assert found["ece"] < 0.03 < 0.1 < found["ece_uncalibrated"]


def test_the_temperature_of_several_labels_is_found_again() -> None:
    rng = numpy.random.default_rng(2)
    logits = rng.normal(0, 1.5, (3000, 2))
    yes = rng.random(logits.shape) < sigmoid(logits)
    labels = [[name for name, is_so in zip("ab", row, strict=True) if is_so] for row in yes]
    options = TargetConfig(problem="multi_label", calibrate=True)
    target = MultiLabel(["a", "b"], [0.5, 0.5]).calibrate(logits / 2, labels, options)
    assert target.temperature == pytest.approx(0.5, rel=0.05)
    assert target.thresholds == [0.5, 0.5]
    found = target.score(target.decode(logits / 2), labels)
    plain = MultiLabel(["a", "b"], [0.5, 0.5])
    assert found["ece_uncalibrated"] == pytest.approx(plain.score(plain.decode(logits / 2), labels)["ece"])
    assert found["ece"] < 0.03 < 0.06 < found["ece_uncalibrated"]


def test_rows_that_are_all_right_have_no_temperature() -> None:
    target = SingleLabel(["a", "b"]).calibrate(
        numpy.array([[2.0, 0.0], [0.0, 3.0]]), ["a", "b"], TargetConfig(calibrate=True)
    )
    assert target.temperature == 1.0


def test_thresholds_decide() -> None:
    logits = numpy.log([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    assert [a["answer"] for a in SingleLabel(["no", "yes"], threshold=0.3).decode(logits)] == ["no", "yes", "yes"]
    assert [a["answer"] for a in SingleLabel(["no", "yes"]).decode(logits)] == ["no", "no", "yes"]
    several = MultiLabel(["a", "b"], [0.5, 0.9]).decode(numpy.array([[1.0, 1.0], [-1.0, 3.0], [-1.0, -1.0]]))
    assert [answer["answer"] for answer in several] == [["a"], ["b"], []]


def test_a_threshold_of_three_labels_is_refused() -> None:
    with pytest.raises(UserError, match="is for two labels, and there are 3"):
        SingleLabel.fit(["a", "b", "c"], TargetConfig(threshold="f1"))


def test_scores_do_not_overflow() -> None:
    wild = numpy.array([[-1000.0, 1000.0]])
    assert sigmoid(wild).tolist() == [[0.0, 1.0]]
    assert softmax(wild).tolist() == [[0.0, 1.0]]
