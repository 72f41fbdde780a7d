"""The cell `answers`: each way to write it, and what can be wrong with it."""

import json
from typing import Any

import pytest

from llmft.schema.problem import UserError
from llmft.tasks.text.contexts import AnswerSpan, read_answers

TEXT = "Ada met 李白 in 🎉 Rome, and left Rome in 1865."
ROME = AnswerSpan("Rome", 16)


@pytest.mark.parametrize(
    ("answers", "start", "expected"),
    [
        ([{"text": "Rome", "answer_start": 16}], None, [ROME]),
        ({"text": ["Rome", "李白"], "answer_start": [31, 8]}, None, [AnswerSpan("Rome", 31), AnswerSpan("李白", 8)]),
        ({"text": ["李白", "🎉 Rome"]}, None, [AnswerSpan("李白", 8), AnswerSpan("🎉 Rome", 14)]),
        ({"text": "Rome", "answer_start": 16}, None, [ROME]),
        ("1865", None, [AnswerSpan("1865", 39)]),
        ("Rome", 31.0, [AnswerSpan("Rome", 31)]),
        (["Ada", "1865"], None, [AnswerSpan("Ada", 0), AnswerSpan("1865", 39)]),
        ([{"text": " Rome,", "answer_start": 15}], None, [AnswerSpan("Rome,", 16)]),
        ({"text": [], "answer_start": []}, None, []),
        ([], None, []),
        ("", None, []),
        (" ", 3.0, []),
    ],
)
def test_each_way_to_write_answers(answers: Any, start: float | None, expected: list[AnswerSpan]) -> None:
    found = read_answers(json.dumps(answers), start, TEXT)
    assert found == expected
    assert all(TEXT[span.start : span.end] == span.text for span in found)


@pytest.mark.parametrize(
    ("answers", "start", "what"),
    [
        (
            [{"text": "Rome", "answer_start": 17}],
            None,
            "answer 'Rome' must stand at its answer_start 17, got 'ome,' there. Write answer_start 16.",
        ),
        (
            "Milan",
            16.0,
            "answer 'Milan' must stand at its answer_start 16, got 'Rome,' there. Copy it from the context",
        ),
        (
            [{"text": "1865", "answer_start": 44}],
            None,
            "answer_start must be inside the context of 44 characters, got 44",
        ),
        (
            [{"text": "Ada", "answer_start": -1}],
            None,
            "answer_start must be inside the context of 44 characters, got -1",
        ),
        ("Ada", 0.5, "answer_start must be a whole number, got 0.5"),
        ([{"text": "Ada", "answer_start": "0"}], None, "answer_start must be a whole number, got '0'"),
        (
            "Milan",
            None,
            "an answer must be a part of the context, got 'Milan'. Copy it from the context, letter by letter.",
        ),
        ("ada", None, "an answer must be a part of the context, got 'ada'"),
        (
            "Rome",
            None,
            "an answer must be in the context once, got 'Rome' more than once. Say where with answer_start.",
        ),
        (
            {"text": ["Ada", "1865"], "answer_start": [0]},
            None,
            "answers must have an answer_start for each text, got 1 for 2",
        ),
        ({"text": ["Ada"], "answer_start": 0}, None, "answer_start must be a list where text is one, got 0"),
        (
            [{"text": " ", "answer_start": 3}],
            None,
            "an answer must have letters, got ' '. Where there is none, leave the list",
        ),
        ([{"answer_start": 3}], None, "an answer must be a text, got None"),
        ([1865], None, "an answer must be a text, got 1865"),
        (1865, None, "answers must hold a text, got 1865. Write"),
        ({"start": 3}, None, "answers must hold a text, got {'start': 3}"),
        (None, None, "answers must hold a text, got None"),
    ],
)
def test_what_is_wrong_is_said_by_its_row(answers: Any, start: float | None, what: str) -> None:
    with pytest.raises(UserError) as error:
        read_answers(json.dumps(answers), start, TEXT, "a.json:7")
    (problem,) = error.value.problems
    assert problem.key == "a.json:7"
    assert what in str(problem)
