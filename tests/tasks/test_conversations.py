"""Rows of four forms become the same messages, and what is no conversation says why."""

import json
from typing import Any

import pytest

from llmft.schema.problem import UserError
from llmft.tasks.conversations import COLUMNS, Unfit, answered, conversation, form_of, of_row, parse, question

ASKED, SAID = {"role": "user", "content": "你好吗?"}, {"role": "assistant", "content": "很好 😀"}
SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"prompt": "你好吗?", "response": "很好 😀"}, [ASKED, SAID]),
        ({"prompt": "你好吗?", "response": "很好 😀", "system": "Be kind."}, [SYSTEM, ASKED, SAID]),
        ({"instruction": "你好吗?", "input": "", "output": "很好 😀"}, [ASKED, SAID]),
        ({"instruction": "Add", "input": "1, 2", "output": "3"}, ["Add\n\n1, 2", "3"]),
        ({"messages": json.dumps([ASKED, SAID])}, [ASKED, SAID]),
        ({"messages": json.dumps([SYSTEM, ASKED, SAID, ASKED])}, [SYSTEM, ASKED, SAID]),
        (
            {"conversations": '[{"from": "human", "value": "你好吗?"}, {"from": "gpt", "value": "很好 😀"}]'},
            [ASKED, SAID],
        ),
        ({"conversations": json.dumps([ASKED, SAID])}, [ASKED, SAID]),
    ],
)
def test_a_row_becomes_messages_up_to_its_last_answer(row: dict[str, Any], messages: list[Any]) -> None:
    found = of_row({"id": "a:1", **row, "unused": None})
    assert (found if isinstance(messages[0], dict) else [message["content"] for message in found]) == messages
    assert question(found) == found[:-1]
    assert question(found[:-1]) == found[:-1]


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("hello", 'messages is "hello", no list of messages'),
        ([], "messages is empty"),
        (["hello"], 'message 1 is "hello", not a role and a content'),
        ([{"content": "a"}], "message 1 has no 'role'; it has 'content'"),
        ([{"from": "human", "text": "a"}], "message 1 has no 'value'; it has 'from', 'text'"),
        ([{"role": "robot", "content": "a"}], 'message 1 is of "robot", which is no role'),
        ([{"role": ["user"], "content": "a"}], 'message 1 is of ["user"], which is no role'),
        ([ASKED, {"role": "assistant", "content": " \n"}], "the content of message 2 is empty"),
        ([ASKED, {"role": "assistant", "content": None}], "the content of message 2 is null, not a text"),
        ([ASKED, {**SAID, "tool_calls": [{"function": {}}]}], "message 2 calls tools"),
        ([SAID, ASKED], "messages begins with an answer; a user asks first"),
        ([SYSTEM], "messages begins with system; a user asks first"),
    ],
)
def test_what_is_no_conversation_says_why(cell: Any, why: str) -> None:
    with pytest.raises(Unfit) as error:
        parse(json.dumps(cell))
    assert str(error.value).startswith(why)


def test_a_row_without_an_answer_has_nothing_to_train_on() -> None:
    with pytest.raises(Unfit, match="no message of the assistant"):
        answered([ASKED])
    with pytest.raises(Unfit, match="response is empty"):
        conversation({"prompt": "a", "response": " "}, form_of(["prompt", "response"], "train"))


@pytest.mark.parametrize(
    ("columns", "answered", "problem"),
    [
        (["text"], True, "train has no column that asks"),
        (["prompt"], True, "train has prompt and no column 'response'"),
        (["instruction", "input"], True, "train has instruction and no column 'output'"),
        (["messages", "prompt"], True, "train has messages and prompt, which are of different forms"),
        (["prompt", "output"], True, "train has prompt and output, which are of different forms"),
        (["prompt", "output"], False, ""),
        (["prompt"], False, ""),
        (["id", "instruction", "output", "system"], True, ""),
    ],
)
def test_columns_are_of_one_form(columns: list[str], answered: bool, problem: str) -> None:
    if not problem:
        assert form_of(columns, "train", answered).asked in columns
        return
    with pytest.raises(UserError) as error:
        form_of(columns, "train", answered)
    assert error.value.problems[0].what.startswith(problem)


def test_answers_are_no_inputs() -> None:
    """Else two rows with one question and two answers would be different inputs, and leaks would not be seen."""
    assert [role for role, spec in COLUMNS.items() if not spec.is_input] == ["output", "response"]
