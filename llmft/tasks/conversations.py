"""From a row to messages: prompt and response, Alpaca's keys, ShareGPT's, or messages with roles."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from llmft.data.table import MANY, listed
from llmft.schema.column import Column
from llmft.schema.problem import Problem, UserError

Message = dict[str, str]
"""`role` and `content`."""

ROLES = {
    **{role: role for role in ("system", "user", "assistant", "tool")},
    "human": "user",
    "gpt": "assistant",
}
"""What a message calls its speaker, and what chat templates call it; the last two are ShareGPT's."""


@dataclass(frozen=True)
class Form:
    """How the rows of a set hold a conversation."""

    about: str
    asked: str
    """The column that it can't do without."""
    answer: str | None = None
    """The column of the answer, where it has one of its own."""
    others: tuple[str, ...] = ()
    """Columns that may be there too."""


FORMS = (
    Form("messages with roles", "messages"),
    Form("ShareGPT's conversations", "conversations"),
    Form("Alpaca's instruction, input and output", "instruction", "output", ("input", "system")),
    Form("prompt and response", "prompt", "response", ("system",)),
)

COLUMNS = {
    "messages": Column("json", required=False),
    "conversations": Column("json", required=False),
    "instruction": Column("text", required=False),
    "input": Column("text", required=False, blank=True),
    "prompt": Column("text", required=False),
    "system": Column("text", required=False, blank=True),
    "output": Column("text", required=False, target=True),
    "response": Column("text", required=False, target=True),
}
"""The roles of a task that reads conversations."""


class Unfit(ValueError):
    """Why a row is no conversation, or one that can't be trained on."""


def problems_of(rows: Iterable[dict[str, Any]], read: Callable[[dict[str, Any]], object]) -> list[Problem]:
    """What is wrong with the first rows that can't be read."""
    problems: list[Problem] = []
    for row in rows:
        try:
            read(row)
        except Unfit as error:
            problems.append(Problem(row["id"], str(error)))
            if len(problems) == MANY:
                break
    return listed(problems)


def form_of(columns: list[str], split: str, answered: bool = True) -> Form:
    """The form of rows with these columns.

    Args:
        answered: whether each row must have an answer.

    Raises:
        UserError: for rows of no form, or of two.
    """
    found = [form for form in FORMS if form.asked in columns]
    if not found:
        what = f"{split} has no column that asks: " + ", ".join(form.asked for form in FORMS)
        hint = "Name one: dataset.columns.prompt=COLUMN dataset.columns.response=COLUMN, or dataset.columns.messages."
        raise UserError(Problem("dataset.columns", what, hint=hint), "the data")
    form = found[0]
    strange = [name for name in COLUMNS if name in columns and name not in (form.asked, form.answer, *form.others)]
    if not answered:
        strange = [name for name in strange if not COLUMNS[name].target]
    if strange:
        what = f"{split} has {form.asked} and {', '.join(strange)}, which are of different forms"
        hint = "Leave the columns of one form; see docs/instructions.md."
        raise UserError(Problem("dataset.columns", what, hint=hint), "the data")
    if answered and form.answer and form.answer not in columns:
        what = f"{split} has {form.asked} and no column {form.answer!r}"
        raise UserError(
            Problem(f"dataset.columns.{form.answer}", what, hint=f"Write dataset.columns.{form.answer}=COLUMN."),
            "the data",
        )
    return form


def conversation(row: dict[str, Any], form: Form) -> list[Message]:
    """The messages of a row, up to its last answer, or to its end where it has none.

    Raises:
        Unfit: with the reason.
    """
    if form.asked in ("messages", "conversations"):
        messages = parse(row[form.asked], form.asked)
    else:
        messages = [_message("user", "\n\n".join(part for part in (row[form.asked], row.get("input")) if part))]
        if system := row.get("system"):
            messages.insert(0, _message("system", system))
        if form.answer in row:
            if not (answer := row[form.answer] or "").strip():
                raise Unfit(f"{form.answer} is empty")
            messages.append(_message("assistant", answer))
    return messages


def parse(text: str, name: str = "messages") -> list[Message]:
    """The messages that a cell of JSON holds, each with `role` and `content`, or `from` and `value`.

    Args:
        name: what the cell is called.

    Raises:
        Unfit: with the reason, and the number of the message that it is about.
    """
    cell = json.loads(text)
    if not isinstance(cell, list):
        raise Unfit(f"{name} is {_short(cell)}, no list of messages")
    if not cell:
        raise Unfit(f"{name} is empty")
    messages = [_parsed(message, f"message {number}") for number, message in enumerate(cell, 1)]
    first = next((message["role"] for message in messages if message["role"] != "system"), "system")
    if first != "user":
        raise Unfit(f"{name} begins with {'an answer' if first == 'assistant' else first}; a user asks first")
    return messages


def answered(messages: list[Message]) -> list[Message]:
    """The messages up to the last answer: what follows it has none to train on.

    Raises:
        Unfit: where there is no answer.
    """
    places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if not places:
        raise Unfit("has no message of the assistant, so nothing to train on")
    return messages[: places[-1] + 1]


def question(messages: list[Message]) -> list[Message]:
    """The messages before the answer that they end with; all where they end with none."""
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def of_row(row: dict[str, Any]) -> list[Message]:
    """The messages of one row, up to its last answer.

    Raises:
        UserError, Unfit: where it holds none.
    """
    return answered(conversation(row, form_of([key for key, value in row.items() if value is not None], "the row")))


def _parsed(message: Any, place: str) -> Message:
    if not isinstance(message, dict):
        raise Unfit(f"{place} is {_short(message)}, not a role and a content")
    keys = ("from", "value") if "from" in message else ("role", "content")
    if missing := [key for key in keys if key not in message]:
        raise Unfit(f"{place} has no {missing[0]!r}; it has {', '.join(map(repr, message)) or 'nothing'}")
    role, content = (message[key] for key in keys)
    if not isinstance(role, str) or role not in ROLES:
        raise Unfit(f"{place} is of {_short(role)}, which is no role; they are {', '.join(ROLES)}")
    if message.get("tool_calls"):
        raise Unfit(f"{place} calls tools in a key of its own, which is not read")
    if not isinstance(content, str):
        raise Unfit(f"the {keys[1]} of {place} is {_short(content)}, not a text")
    if not content.strip():
        raise Unfit(f"the {keys[1]} of {place} is empty")
    return _message(ROLES[role], content)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"
