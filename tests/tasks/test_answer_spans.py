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
        ([{"text": "Rome", "answer_start": 17}], None, "'Rome' is not what stands at 17: 'ome,'. It stands at 16."),
        ("Milan", 16.0, "'Milan' is not what stands at 16: 'Rome,'. An answer is a part of the context"),
        ([{"text": "1865", "answer_start": 44}], None, "answer_start 44 is outside the context of 44 characters"),
        ([{"text": "Ada", "answer_start": -1}], None, "answer_start -1 is outside the context"),
        ("Ada", 0.5, "answer_start is 0.5, no whole number"),
        ([{"text": "Ada", "answer_start": "0"}], None, "answer_start is '0', no whole number"),
        ("Milan", None, "'Milan' is not in the context. An answer is a part of the context, letter by letter."),
        ("ada", None, "'ada' is not in the context"),
        ("Rome", None, "'Rome' is in the context more than once. Say where with answer_start."),
        ({"text": ["Ada", "1865"], "answer_start": [0]}, None, "answers has 2 of `text` and 1 of `answer_start`"),
        ({"text": ["Ada"], "answer_start": 0}, None, "`text` of answers is a list, and `answer_start` is 0"),
        ([{"text": " ", "answer_start": 3}], None, "an answer is empty. Where there is none, leave the list"),
        ([{"answer_start": 3}], None, "answer None is not text"),
        ([1865], None, "answer 1865 is not text"),
        (1865, None, "answers is 1865, which holds no text. Write"),
        ({"start": 3}, None, "answers is {'start': 3}, which holds no text"),
        (None, None, "answers is None, which holds no text"),
    ],
)
def test_what_is_wrong_is_said_by_its_row(answers: Any, start: float | None, what: str) -> None:
    with pytest.raises(UserError) as error:
        read_answers(json.dumps(answers), start, TEXT, "a.json:7")
    (problem,) = error.value.problems
    assert problem.key == "a.json:7"
    assert what in str(problem)
