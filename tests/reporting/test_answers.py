"""What the report picks of many answers."""

from typing import Any

from llmft.reporting.answers import mistakes, per_label, pictures
from llmft.schema.target import ProblemType
from llmft.schema.tasks.text_classification import TextClassification as Options
from llmft.tasks.text_classification import TextClassification


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
    ((title, text, picture),) = pictures([row("a", "a")], scores)
    assert title == "Reliability"
    assert "0.1000, and was 0.2000 before calibration" in text
    assert picture.count("<polyline") == 3
    ((title, _, picture),) = pictures([row(float(number), 1.0) for number in range(2500)], {})
    assert title == "Answers"
    assert picture.count('<circle class="a"') == 834  # every third
    assert picture.count("<polyline") == 1
