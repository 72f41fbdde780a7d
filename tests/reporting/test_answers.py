"""What the report picks of many answers."""

from typing import Any

import pytest

from llmft.reporting.answers import charts, mistakes, parts, per_label, samples
from llmft.reporting.data_facts import balance, interval, majority
from llmft.tasks.targets.config import ProblemType
from llmft.tasks.text.config import TextClassification as Options
from llmft.tasks.text.text_classification import TextClassification


def task(problem: ProblemType = "single_label") -> TextClassification:
    return TextClassification(Options(problem=problem))


def row(answer: Any, label: Any, **scores: float) -> dict[str, Any]:
    return {"id": f"{answer}", "input": "x", "answer": answer, "label": label} | ({"scores": scores} if scores else {})


def test_the_surest_mistakes_come_first() -> None:
    rows = [row("a", "a", a=1.0, b=0.0), row("a", "b", a=0.6, b=0.4), row("b", "a", a=0.1, b=0.9)]
    assert [(found["answer"], found["how"]) for found in mistakes(rows, task())] == [("b", "90.0%"), ("a", "60.0%")]


def test_of_several_labels_the_surest_that_is_wrong_counts() -> None:
    """Said a by mistake with 0.7; missed b, which had 0.1, so was sure of `no` with 0.9; right in any order."""
    rows = [row(["a"], [], a=0.7, b=0.2), row([], ["b"], a=0.2, b=0.1), row(["a", "b"], ["b", "a"], a=0.8, b=0.9)]
    found = [(found["answer"], found["label"], found["how"]) for found in mistakes(rows, task("multi_label"))]
    assert found == [("–", "b", "90.0%"), ("a", "–", "70.0%")]


def test_the_largest_errors_come_first() -> None:
    rows = [row(1.0, 1.5), row(4.0, 1.0), row(2.0, 2.0)]
    assert [(found["answer"], found["label"], found["how"]) for found in mistakes(rows, task("regression"))] == [
        ("4", "1", "3"),
        ("1", "1.5", "0.5"),
    ]


def test_labels_beyond_the_page_are_those_with_the_lowest_f1() -> None:
    few = {"b": {"f1": 0.9}, "a": {"f1": 0.1}}
    assert [name for name, _ in per_label(few)] == ["b", "a"]
    many = {f"l{number}": {"f1": number / 100} for number in reversed(range(100))}
    assert [name for name, _ in per_label(many)] == [f"l{number}" for number in range(20)]


def test_pictures_fit_the_problem() -> None:
    bins = [{"score": 0.4, "right": 0.5, "rows": 10}, {"score": 0.9, "right": 0.8, "rows": 10}]
    scores = {"ece": 0.1, "ece_uncalibrated": 0.2, "reliability": {"after": bins, "before": bins}}
    ((title, text, picture),) = charts([row("a", "a")], scores)
    assert title == "Reliability"
    assert "0.1000, 0.2000 before calibration" in text
    assert picture.count("<polyline") == 3
    ((title, _, picture),) = charts([row(float(number), 1.0) for number in range(2500)], {})
    assert title == "Answers"
    assert picture.count('<circle class="a"') == 834  # every third
    assert picture.count("<polyline") == 1


def test_equal_mistakes_are_one_and_counted() -> None:
    rows = [row("a", "b", a=0.6, b=0.4)] * 3 + [row("b", "a", a=0.1, b=0.9)]
    assert [(found["answer"], found["times"]) for found in mistakes(rows, task())] == [("b", 1), ("a", 3)]


def test_right_answers_are_shown_too() -> None:
    rows = [row("a", "a") | {"input": f"text {number // 2}"} for number in range(20)] + [row("a", "b", a=0.6)]
    shown = samples(rows, task())
    assert [found["parts"] for found in shown] == [[(f"text {number}", "")] for number in range(5)]


def test_a_text_is_cut_at_what_an_answer_names() -> None:
    assert parts("Ann in Köln.", [(7, 11, "place"), (0, 3, "person")]) == [
        ("Ann", "person"),
        (" in ", ""),
        ("Köln", "place"),
        (".", ""),
    ]
    assert parts("", []) == []


# Worked out by hand from the formula of Wilson's interval: 0.5 of 100, and 28 of 28.
@pytest.mark.parametrize(
    ("count", "value", "low", "high"), [(100, 0.5, 0.4038, 0.5962), (28, 1.0, 0.8794, 1.0), (3, 0.0, 0.0, 0.5615)]
)
def test_the_interval_of_an_accuracy(count: int, value: float, low: float, high: float) -> None:
    found = interval([row("a", "a")] * count, "accuracy", value)
    assert found == pytest.approx((low, high), abs=5e-5)
    assert interval([row("a", "a")] * count, "f1", value) is None


def test_the_majority_baseline_is_the_most_frequent_label_of_train() -> None:
    facts = {"splits": {"train": {"balance": {"a": 60, "b": 40}}, "test": {"balance": {"b": 3, "a": 1}}}}
    rows = [row("a", "a"), row("b", "b"), row("b", "b"), row("b", "b")]
    assert majority(facts, rows, "accuracy") == 0.25
    assert majority(facts, rows, "f1") is None
    assert majority({"splits": {}}, rows, "accuracy") is None


@pytest.mark.parametrize(
    ("answers", "facts"),
    [
        (["a", "b", "a", None], {"balance": {"a": 2, "b": 1}, "labels": 2}),
        ([["a", "b"], [], ["b"]], {"balance": {"b": 2, "a": 1}, "labels": 2}),
        ([[{"label": "person"}, {"label": "place"}], [{"label": "place"}]], {"balance": {"place": 2, "person": 1}, "labels": 2}),
        ([1.0, 3.0, None], {"numbers": {"least": 1.0, "mean": 2.0, "greatest": 3.0}}),
        ([f"a text {number}" for number in range(30)], {}),
        ([None, None], {}),
    ],
)  # fmt: skip
def test_the_balance_of_answers(answers: list[Any], facts: dict[str, Any]) -> None:
    assert balance(answers) == facts
