"""From a row to a conversation: prompt and response, Alpaca's keys, ShareGPT's, or messages with roles."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

from llmft.data.source import MANY, listed
from llmft.schema.column import Column
from llmft.schema.problem import Problem, UserError

Message = dict[str, Any]
"""`role`, `content`, which is a text, and other keys of the row, such as `tool_calls` or `reasoning_content`."""

ROLES = {
    **{role: role for role in ("system", "user", "assistant", "tool")},
    "human": "user",
    "gpt": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function": "tool",
}
"""What a message calls its speaker, and what chat templates call it: ShareGPT's names, those that its rows with tools
use, and OpenAI's older one."""

MARKS = ("weight", "train", "loss")
"""Keys of a message that say, by 0 or 1, whether it is trained."""
MEDIA = ("images", "videos", "audios")
"""Columns that a text model cannot read."""


@dataclass(frozen=True)
class Conversation:
    """Messages, and other variables of the chat template."""

    messages: list[Message]
    given: dict[str, Any] = field(default_factory=dict)
    """Variables of the template by name: `tools`, `documents`, and those of `chat_template_kwargs`."""
    untrained: frozenset[int] = frozenset()
    """Indices of the answers that the row excludes from training."""

    def until(self, place: int) -> Self:
        """The conversation before the message with this index."""
        left = frozenset(number for number in self.untrained if number < place)
        return replace(self, messages=self.messages[:place], untrained=left)

    def to_last_answer(self) -> Self:
        """The conversation up to its last trained answer.

        Raises:
            Unfit: where there is none.
        """
        places = [place for place, message in enumerate(self.messages) if message["role"] == "assistant"]
        if not places:
            raise Unfit("has no message of the assistant, so nothing to train on")
        trained = [place for place in places if place not in self.untrained]
        if not trained:
            raise Unfit(f"has no answer to train on: {' or '.join(MARKS)} is 0 for all of them")
        return self.until(trained[-1] + 1)

    def question(self) -> Self:
        """The conversation without the answer at its end; the whole conversation if it has none."""
        ends = self.messages[-1]["role"] == "assistant"
        return self.until(len(self.messages) - 1) if ends else self


@dataclass(frozen=True)
class Form:
    """How rows hold a conversation."""

    about: str
    asked: str
    """The column that must be there."""
    answer: str | None = None
    """The column of the answer, if it has one of its own."""
    others: tuple[str, ...] = ()
    """Further columns that may be there, beside those of BESIDE."""


FORMS = (
    Form("messages with roles", "messages"),
    Form("ShareGPT's conversations", "conversations"),
    Form("Alpaca's instruction, input and output", "instruction", "output", ("input", "history")),
    Form("prompt and response", "prompt", "response", ("history",)),
)

OPTIONAL = Column("json", required=False, blank=True)
BESIDE = {
    "system": Column("text", required=False, blank=True),
    **dict.fromkeys(("tools", "documents", "chat_template_kwargs", *MEDIA), OPTIONAL),
}
"""Columns that may be added to any form."""

COLUMNS = {
    "messages": Column("json", required=False),
    "conversations": Column("json", required=False),
    "instruction": Column("text", required=False),
    "input": Column("text", required=False, blank=True),
    "prompt": Column("text", required=False),
    "history": OPTIONAL,
    **BESIDE,
    "output": Column("text", required=False, target=True),
    "response": Column("text", required=False, target=True),
}
"""The roles of a task that reads conversations."""


class Unfit(ValueError):
    """Why a row is not a conversation, or cannot be trained on."""

    def __init__(self, what: str, hint: str = "") -> None:
        """`hint`: what to write instead in a config."""
        super().__init__(f"{what}; {hint}" if hint else what)
        self.what = what


def problems_of(rows: Iterable[dict[str, Any]], read: Callable[[dict[str, Any]], object]) -> list[Problem]:
    """A problem for each of the first rows that cannot be read."""
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
    own = (form.asked, form.answer, *form.others, *BESIDE)
    strange = [name for name in COLUMNS if name in columns and name not in own]
    if not answered:
        strange = [name for name in strange if not COLUMNS[name].target]
    if strange:
        what = f"{split} has {form.asked} and {', '.join(strange)}, which are of different forms"
        hint = f"Leave the columns of one form: dataset.ignore=[{','.join(strange)}]; see docs/instructions.md."
        raise UserError(Problem("dataset.columns", what, hint=hint), "the data")
    if answered and form.answer and form.answer not in columns:
        what = f"{split} has {form.asked} and no column {form.answer!r}"
        raise UserError(
            Problem(f"dataset.columns.{form.answer}", what, hint=f"Write dataset.columns.{form.answer}=COLUMN."),
            "the data",
        )
    return form


def conversation(row: dict[str, Any], form: Form, asked: bool = False) -> Conversation:
    """The whole conversation of a row; without a column of answers, it ends with the question.

    Args:
        asked: whether an answer that it ends with is not looked at.

    Raises:
        Unfit: with the reason.
    """
    if form.asked in ("messages", "conversations"):
        messages = parse(row[form.asked], form.asked, asked)
    else:
        question = "\n\n".join(part for part in (row[form.asked], row.get("input")) if part)
        messages = [*_history(row.get("history")), _message("user", question)]
        if form.answer in row:
            if not (answer := row[form.answer] or "").strip():
                raise Unfit(f"{form.answer} is empty")
            messages.append(_message("assistant", answer))
    return with_beside(messages, row)


def with_beside(messages: list[Message], row: dict[str, Any]) -> Conversation:
    """The conversation of some messages and the columns BESIDE them.

    Raises:
        Unfit: with the reason.
    """
    if (system := row.get("system")) and system.strip():
        if messages[0]["role"] == "system":
            raise Unfit("has a column system, and a message of the system as well")
        messages = [_message("system", system), *messages]
    cells = {name: _cell(row.get(name)) for name in BESIDE if name != "system"}
    for name in MEDIA:
        if cells[name]:
            raise Unfit(f"has {name}, which a text model cannot read", ignore(name))
    given = {name: _tools(cells[name]) if name == "tools" else cells[name] for name in ("tools", "documents")}
    more = cells["chat_template_kwargs"] or {}
    if not isinstance(more, dict):
        raise Unfit(f"chat_template_kwargs is {_short(more)}, no table of names and values")
    given = {name: value for name, value in (more | given).items() if value not in EMPTY}
    untrained = frozenset(place for place, message in enumerate(messages) if not message.get("train", True))
    return Conversation([_without(message, "train") for message in messages], given, untrained)


EMPTY: tuple[Any, ...] = (None, "", [], {})
"""Values that mean nothing is given."""


def ignore(name: str) -> str:
    """What to write to ignore a column, or a key of messages."""
    return f"write dataset.ignore=[{name}] to leave it out"


def _cell(cell: str | None) -> Any:
    """The value of a cell of JSON; a text that is JSON itself, as tools often are, is parsed again."""
    value = None if cell is None else json.loads(cell)
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _history(cell: str | None) -> list[Message]:
    """The messages of earlier turns, each a question and its answer."""
    turns = _cell(cell) or []
    whole = isinstance(turns, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) and text.strip() for text in turn)
        for turn in turns
    )
    if not whole:
        raise Unfit(f"history is {_short(turns)}, no list of turns [question, answer]")
    return [_message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]


def _tools(tools: Any) -> list[Any]:
    """Tools in the form of transformers' chat templates, `{type: function, function: {name, ...}}`.

    Keys of a tool that are null are left out: a column of parquet has each key in each tool.
    """
    if tools in EMPTY:
        return []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise Unfit(f"tools is {_short(tools)}, no list of functions")
    found = [_whole(tool if "function" in tool else {"type": "function", "function": tool}) for tool in tools]
    for number, tool in enumerate(found, 1):
        if not isinstance(tool["function"], dict) or not isinstance(tool["function"].get("name"), str):
            raise Unfit(f"tool {number} has no name; it is {_short(tools[number - 1])}")
    return found


def _whole(value: Any) -> Any:
    """A description of a tool without keys that are null."""
    if isinstance(value, dict):
        return {key: _whole(part) for key, part in value.items() if part is not None or key in ("default", "const")}
    return [_whole(part) for part in value] if isinstance(value, list) else value


def parse(text: str, name: str = "messages", asked: bool = False) -> list[Message]:
    """The messages that a cell of JSON holds, each with `role` and `content`, or `from` and `value`.

    Args:
        name: what the cell is called.
        asked: whether an answer at the end is left out unread.

    Returns:
        messages; of an answer that is to be left out of training, `train` is False.

    Raises:
        Unfit: with the reason, and the number of the message that it is about.
    """
    cell = _cell(text)
    if not isinstance(cell, list):
        raise Unfit(f"{name} is {_short(cell)}, no list of messages")
    if asked and cell and isinstance(cell[-1], dict):
        cell = cell[:-1] if ROLES.get(str(cell[-1].get("role", cell[-1].get("from")))) == "assistant" else cell
    if not cell:
        raise Unfit(f"{name} is empty")
    messages = [_parsed(message, f"message {number}") for number, message in enumerate(cell, 1)]
    first = next((message["role"] for message in messages if message["role"] != "system"), "system")
    if first != "user":
        raise Unfit(f"{name} begins with {'an answer' if first == 'assistant' else first}; a user asks first")
    return messages


def of_row(row: dict[str, Any]) -> Conversation:
    """The conversation of one row, up to its last answer.

    Raises:
        UserError, Unfit: where it holds none.
    """
    found = conversation(row, form_of([key for key, value in row.items() if value is not None], "the row"))
    return found.to_last_answer()


def text_of(message: Message) -> str:
    """A message as reports show it: its text, and the tools that it calls."""
    calls = message.get("tool_calls", [])
    written = [json.dumps(call.get("function", call), ensure_ascii=False) for call in calls]
    return "\n".join(part for part in (message["content"], *written) if part)


def _parsed(message: Any, place: str) -> Message:
    if not isinstance(message, dict):
        raise Unfit(f"{place} is {_short(message)}, not a role and a content")
    keys = ("from", "value") if "from" in message else ("role", "content")
    others = {key: value for key, value in message.items() if key not in keys and value not in EMPTY}
    speaker, calls = message.get(keys[0]), others.pop("tool_calls", None)
    if "function_call" in others and calls is None:  # OpenAI's older key
        calls = [others.pop("function_call")]
    content = message.get(keys[1])
    if speaker == "function_call":
        calls, content = _cell(json.dumps(content)), ""
        calls = calls if isinstance(calls, list) else [calls]
    missing = [key for key in keys if key not in message and not (key == "content" and calls)]
    if missing:
        raise Unfit(f"{place} has no {missing[0]!r}; it has {', '.join(map(repr, message)) or 'nothing'}")
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise Unfit(f"{place} is of {_short(speaker)}, which is not a role; they are {', '.join(ROLES)}")
    content = _text("" if content is None and calls else content, keys[1], place)
    if not content.strip() and not calls:
        raise Unfit(f"the {keys[1]} of {place} is empty")
    role = ROLES[speaker]
    found = _message(role, content) | ({"tool_calls": _calls(calls, place)} if calls else {})
    if calls and role != "assistant":
        raise Unfit(f"{place} is of {speaker}, and calls tools, which only an answer can")
    if not _trained(others, role, place):
        found["train"] = False
    return found | others


def _text(content: Any, key: str, place: str) -> str:
    """The content of a message, which is a text or a list of parts."""
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        strange = [part.get("type") for part in content if part.get("type") != "text"]
        if strange:
            raise Unfit(f"the {key} of {place} holds {_short(strange[0])}, and a text model reads text alone")
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise Unfit(f"the {key} of {place} is {_short(content)}, not a text")
    return content


def _trained(others: dict[str, Any], role: str, place: str) -> bool:
    """Whether a message may be trained; removes the keys that say so from `others`."""
    trained = True
    for key in [key for key in MARKS if key in others]:
        value = others.pop(key)
        if value not in (0, 1):
            raise Unfit(f"{key} of {place} is {_short(value)}: an answer is trained, 1, or left out, 0")
        if value and role != "assistant":
            raise Unfit(f"{key} of {place} is {_short(value)}, and only answers are trained", ignore(key))
        trained = trained and bool(value)
    return trained


def _calls(calls: Any, place: str) -> list[Any]:
    """Calls of tools in the form of chat templates: arguments are a dict, not a JSON string as in OpenAI's form."""
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise Unfit(f"tool_calls of {place} is {_short(calls)}, no list of calls")
    found = []
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unfit(f"{place} calls {_short(call)}, which has no name")
        arguments = function.get("arguments", {})
        try:
            arguments = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
        except ValueError:
            raise Unfit(f"the arguments of a tool call of {place} are {_short(arguments)}, no JSON") from None
        outer = call if "function" in call else {"type": "function"}
        found.append({**outer, "function": {**function, "arguments": arguments}})
    return found


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _without(message: Message, *keys: str) -> Message:
    return {key: value for key, value in message.items() if key not in keys}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"
