"""Exact match and F1 as SQuAD's evaluation scripts define them, on answers whose scores were worked out by hand."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from llmft.metrics.text_metrics import SpanAnswers, exact_match, f1, normalize_text, words

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data/squad_answers.jsonl").read_text(encoding="utf-8").splitlines()
]
NAMES = ("exact_match", "f1")


def scores(rows: list[dict[str, Any]]) -> Any:
    return SpanAnswers().compute(predictions=[row["said"] for row in rows], references=[row["right"] for row in rows])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['said']} | {' / '.join(row['right'])}")
def test_each_answer_scores_what_the_definition_says(row: dict[str, Any]) -> None:
    assert scores([row]) == {name: pytest.approx(float(Fraction(*row[name])), rel=1e-15) for name in NAMES}


def test_the_stored_answers_agree_to_the_last_digit() -> None:
    found = scores(ROWS)
    kinds = {
        "": ROWS,
        "has_answer_": [r for r in ROWS if r["right"]],
        "no_answer_": [r for r in ROWS if not r["right"]],
    }
    # By fractions: nothing of them is rounded before the end.
    assert found == {
        f"{kind}{name}": pytest.approx(float(sum(Fraction(*row[name]) for row in rows) / len(rows)), rel=1e-15)
        for kind, rows in kinds.items()
        for name in NAMES
    }


def test_a_set_of_one_kind_is_not_told_apart() -> None:
    assert set(scores([row for row in ROWS if row["right"]])) == set(NAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  The  Cat,\tsat on A  mat. ", "cat sat on mat"),
        ("an-a-the", "anathe"),
        ("U.S.A.", "usa"),
        ("$1,000.50", "100050"),
        ("Them and others", "them and others"),
        ("《红楼梦》、（上）", "红楼梦上"),
        ("Ａ１ー々〇", "ａ１ー々〇"),
        ("!?", ""),
    ],
)
def test_a_text_is_normalised_as_squad_does(text: str, expected: str) -> None:
    assert normalize_text(text) == expected


def test_the_right_answers_of_squad_are_right(shared: Callable[[str], Path]) -> None:
    """And each is as good as the best of the others that people gave, or less: about what a person scores."""
    tree = json.loads((shared("squad_v1.1") / "dev-v1.1-subset.json").read_text(encoding="utf-8"))
    answers = [
        [answer["text"] for answer in question["answers"]]
        for article in tree["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    assert len(answers) == 700
    assert all(exact_match(text, texts) == f1(text, texts) == 1 for texts in answers for text in texts)
    people = [(f1(texts[0], texts[1:]), exact_match(texts[0], texts[1:])) for texts in answers]
    assert all(share >= exact for share, exact in people)
    assert 0.8 < sum(share for share, _ in people) / 700 < 1


def test_each_letter_of_chinese_is_a_word() -> None:
    assert words("二〇〇八年 in 人々") == ["二", "〇", "〇", "八", "年", "in", "人", "々"]
