"""Rows of four forms become the same messages, and what is not a conversation says why."""

import json
from typing import Any

import pytest

from llmft.schema.problem import UserError
from llmft.tasks.chat.conversations import COLUMNS, Conversation, Unfit, conversation, form_of, of_row, parse

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
    said = found.messages
    assert (said if isinstance(messages[0], dict) else [message["content"] for message in said]) == messages
    assert found.question().messages == found.question().question().messages == said[:-1]


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("hello", 'messages is "hello", no list of messages'),
        ([], "messages is empty"),
        (["hello"], 'message 1 is "hello", not a role and a content'),
        ([{"content": "a"}], "message 1 has no 'role'; it has 'content'"),
        ([{"from": "human", "text": "a"}], "message 1 has no 'value'; it has 'from', 'text'"),
        ([{"role": "robot", "content": "a"}], 'message 1 is of "robot", which is not a role'),
        ([{"role": ["user"], "content": "a"}], 'message 1 is of ["user"], which is not a role'),
        ([ASKED, {"role": "assistant", "content": " \n"}], "the content of message 2 is empty"),
        ([ASKED, {"role": "assistant", "content": None}], "the content of message 2 is null, not a text"),
        ([ASKED, {**SAID, "tool_calls": [{"function": {}}]}], 'message 2 calls {"function": {}}, which has no name'),
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
        Conversation([ASKED]).to_last_answer()
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


CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({**SAID, "weight": 1, "name": None, "images": []}, SAID),
        ({**SAID, "weight": 0}, {**SAID, "train": False}),
        ({**SAID, "train": True, "loss": False}, {**SAID, "train": False}),
        ({**SAID, "reasoning_content": "hm"}, {**SAID, "reasoning_content": "hm"}),
        ({**SAID, "content": [{"type": "text", "text": "很好"}, {"type": "text", "text": " 😀"}]}, SAID),
        ({"role": "assistant", "tool_calls": [CALL]}, CALLING),
        ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}}, CALLING),
        ({"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'}, CALLING),
        ({"from": "gpt", "value": "", "tool_calls": [{**CALL, "id": "x"}]}, {**CALLING, "tool_calls": [{**CALL, "id": "x"}]}),
    ],
)  # fmt: skip
def test_a_message_says_more_than_its_text(message: dict[str, Any], read: dict[str, Any]) -> None:
    assert parse(json.dumps([ASKED, message])) == [ASKED, read]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({**SAID, "weight": 0.5}, "weight of message 2 is 0.5: an answer is trained, 1, or left out, 0"),
        ({**ASKED, "train": True}, "train of message 2 is true, and only answers are trained; write dataset.ignore"),
        ({**ASKED, "tool_calls": [CALL]}, "message 2 is of user, and calls tools"),
        ({**SAID, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "the arguments of a tool call of mess"),
        ({**SAID, "content": [{"type": "image_url"}]}, 'the content of message 2 holds "image_url", and a text model'),
    ],
)  # fmt: skip
def test_what_a_message_must_not_say(message: dict[str, Any], why: str) -> None:
    with pytest.raises(Unfit) as error:
        parse(json.dumps([ASKED, message]))
    assert str(error.value).startswith(why)


def read(row: dict[str, Any]) -> Conversation:
    return of_row({key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()})


def test_what_stands_beside_the_messages_goes_to_the_template() -> None:
    row = {"prompt": "Now?", "response": "Now.", "system": "Be kind.", "history": [["你好吗?", "很好 😀"]]}
    assert read(row).messages == [
        SYSTEM,
        ASKED,
        SAID,
        {"role": "user", "content": "Now?"},
        {"role": "assistant", "content": "Now."},
    ]
    tool = {"name": "f", "parameters": {"a": None, "b": {"default": None}}}
    whole = {"type": "function", "function": {"name": "f", "parameters": {"b": {"default": None}}}}
    for tools in ([tool], json.dumps(json.dumps([tool])), [{"type": "function", "function": tool}]):
        found = read({"conversations": [ASKED, SAID], "tools": tools, "system": "Be kind."})
        assert (found.given, found.messages) == ({"tools": [whole]}, [SYSTEM, ASKED, SAID])
    row = {"messages": [ASKED, SAID], "tools": "[]", "images": [], "documents": [{"text": "a"}]}
    assert read(row | {"chat_template_kwargs": {"enable_thinking": False, "xml": None}}).given == {
        "enable_thinking": False, "documents": [{"text": "a"}],
    }  # fmt: skip
    weighed = [ASKED, {**SAID, "weight": 1}, ASKED, {**SAID, "weight": 0}, ASKED]
    assert read({"messages": weighed}) == Conversation([ASKED, SAID])
    weighed[1]["weight"] = 0
    with pytest.raises(Unfit, match="has no answer to train on"):
        read({"messages": weighed})


@pytest.mark.parametrize(
    ("beside", "why"),
    [
        ({"images": ["a.png"]}, "has images, which a text model cannot read; write dataset.ignore=[images] to leave"),
        ({"system": "Be kind."}, "has a column system, and a message of the system as well"),
        ({"tools": ["f"]}, 'tools is ["f"], no list of functions'),
        ({"tools": [{"type": "function"}]}, "tool 1 has no name"),
        ({"chat_template_kwargs": ["a"]}, 'chat_template_kwargs is ["a"], no table'),
    ],
)
def test_what_must_not_stand_beside_the_messages(beside: dict[str, Any], why: str) -> None:
    with pytest.raises(Unfit) as error:
        read({"messages": [SYSTEM, ASKED, SAID], **beside})
    assert str(error.value).startswith(why)
    with pytest.raises(Unfit, match="history is "):
        read({"prompt": "a", "response": "b", "history": [["a"]]})


def test_an_answer_that_is_not_looked_at_may_be_empty() -> None:
    row = {"messages": json.dumps([ASKED, {**SAID, "content": ""}])}
    assert conversation(row, form_of(["messages"], "rows", False), asked=True).messages == [ASKED]
