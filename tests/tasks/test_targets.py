"""What the tasks learn of the column `label`, and how it is kept."""

import json
from pathlib import Path

import numpy
import pytest

from llmft.schema.problem import UserError
from llmft.schema.target import TargetConfig
from llmft.tasks.facts import read_facts, write_facts
from llmft.tasks.multi_label import MultiLabel
from llmft.tasks.problems import from_facts, to_facts
from llmft.tasks.regression import Regression
from llmft.tasks.single_label import SingleLabel
from llmft.tasks.target import Target


def test_numbers_are_standardised_and_put_back() -> None:
    target = Regression.fit([10.0, 20.0, 60.0], TargetConfig(problem="regression"))
    assert target == Regression(30.0, pytest.approx((1400 / 3) ** 0.5))
    outputs = numpy.array(target.encode([-5.0, 30.0, 1e6]))[:, None]
    assert [answer["answer"] for answer in target.decode(outputs)] == pytest.approx([-5.0, 30.0, 1e6])


@pytest.mark.parametrize(("labels", "what"), [([4.0, 4.0], "one number only, 4"), ([], "no number")])
def test_one_number_is_nothing_to_learn(labels: list[float], what: str) -> None:
    with pytest.raises(UserError, match=what):
        Regression.fit(labels, TargetConfig(problem="regression"))


WEIGHTS = [
    ("single_label", ["a", "a", "a", "b"], None, None),
    ("single_label", ["a", "a", "a", "b"], "balanced", [4 / 6, 2.0]),
    ("single_label", ["a", "a", "a", "b"], {"b": 5}, [1.0, 5.0]),
    ("single_label", ["0", "1", "1", "1"], {0: 3}, [3.0, 1.0]),
    ("multi_label", [["a"], ["a", "b"], ["a"], []], "balanced", [1 / 3, 3.0]),
    ("multi_label", [["a"], ["a", "b"]], "balanced", [1.0, 1.0]),
]


@pytest.mark.parametrize(("problem", "labels", "wanted", "expected"), WEIGHTS)
def test_weights_of_labels(problem: str, labels: list[str], wanted: object, expected: list[float] | None) -> None:
    kind = {"single_label": SingleLabel, "multi_label": MultiLabel}[problem]
    weights = kind.fit(labels, TargetConfig(problem=problem, class_weights=wanted)).weights
    assert weights == (None if expected is None else pytest.approx(expected))


def test_weights_of_labels_that_there_are_not() -> None:
    with pytest.raises(UserError, match=r"no label 'c'\. They are a, b"):
        SingleLabel.fit(["a", "b"], TargetConfig(class_weights={"c": 2}))


def test_several_labels_become_a_table_and_come_back() -> None:
    target = MultiLabel.fit([["red"], [], ["round", "red"]], TargetConfig(problem="multi_label", threshold=0.25))
    assert (target.labels, target.thresholds) == (["red", "round"], [0.25, 0.25])
    assert target.encode([["round"], [], ["round", "red"]]) == [[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    assert [answer["answer"] for answer in target.decode(numpy.array([[-9.0, 9.0], [-9.0, -9.0], [9.0, 9.0]]))] == [
        ["round"],
        [],
        ["red", "round"],
    ]


@pytest.mark.parametrize(
    "target",
    [
        SingleLabel(["a", "b"], [1.0, 2.0], 1.5, 0.3),
        MultiLabel(["a", "b"], [0.3, 0.4], None, 0.7),
        Regression(3.0, 2.0),
    ],
)
def test_a_target_comes_back_as_it_was_kept(target: Target, here: Path) -> None:
    write_facts(here, {"target": to_facts(target), "other": 1})
    facts = read_facts(here)
    assert from_facts(facts) == target
    assert facts == {"other": 1}


def test_the_task_json_of_older_runs_is_read(here: Path) -> None:
    (here / "task.json").write_text(json.dumps({"format": 1, "labels": ["a", "b"], "max_length": 8, "pair": False}))
    facts = read_facts(here)
    assert from_facts(facts) == SingleLabel(["a", "b"])
    assert facts == {"max_length": 8, "pair": False}


def test_a_task_json_of_a_later_llmft_is_refused(here: Path) -> None:
    (here / "task.json").write_text('{"format": 3, "target": {}}')
    with pytest.raises(ValueError, match="format 3; this llmft reads formats 1 to 2"):
        read_facts(here)
