"""From a row to two conversations that differ in the last answer: the chosen one and the rejected one."""

import json
from typing import Any

from llmft.schema.column import Column
from llmft.tasks.chat.conversations import BESIDE, Conversation, Form, Message, Unfit, ignore, parse, with_beside


def _holds_messages(value: Any) -> bool:
    """Whether the JSON of a cell is a list of messages; `[0, 1]` and `{"name": "Ann"}` are texts."""
    whole = isinstance(value, list) and bool(value)
    return whole and all(isinstance(one, dict) and not {"role", "from"}.isdisjoint(one) for one in value)


COLUMNS = {
    "prompt": Column("json", required=False, structure=_holds_messages),
    "instruction": Column("json", required=False, structure=_holds_messages),
    "conversations": Column("json", required=False, structure=_holds_messages),
    "input": Column("text", required=False, blank=True),
    **BESIDE,
    "chosen": Column("json", structure=_holds_messages),
    "rejected": Column("json", structure=_holds_messages),
}
"""The roles of a task that compares answers: each a text, or a list of messages. A prompt with a column of its own is
in one of the first three; `input` is added below it, as in Alpaca."""
ASKED = ("prompt", "instruction", "conversations")


def form_of(row: dict[str, Any]) -> Form:
    """The form of the rows, told from the first one."""
    if any((row.get(name) or "").startswith('"') for name in ASKED):
        return Form("a prompt with two answers", "prompt", "chosen")
    return Form("pairs of conversations", "chosen")


def pair(row: dict[str, Any]) -> tuple[Conversation, Conversation]:
    """The conversations with the chosen and the rejected answer, equal up to these.

    An answer is a text, a message, or a whole conversation that ends with it.

    Raises:
        Unfit: with the reason.
    """
    prompt = question(row)
    found = tuple(_conversation(prompt, json.loads(row[side]), side) for side in ("chosen", "rejected"))
    if found[0][:-1] != found[1][:-1]:
        raise Unfit("chosen and rejected answer different prompts")
    if found[0] == found[1]:
        raise Unfit("chosen and rejected are the same answer")
    chosen, rejected = (with_beside(messages, row) for messages in found)
    if any(len(talk.messages) - 1 in talk.untrained for talk in (chosen, rejected)):
        raise Unfit("an answer is to be left out of training, and both are compared")
    return chosen, rejected


def prompt_of(row: dict[str, Any]) -> Conversation:
    """The prompt of a row without answers, as a conversation.

    Raises:
        Unfit: with the reason.
    """
    if not (prompt := question(row)):
        raise Unfit(f"has none of {', '.join(ASKED)}, to be answered")
    return with_beside(parse(json.dumps(prompt), "prompt", asked=True), row)


def question(row: dict[str, Any]) -> list[Any]:
    """The messages before both answers, unparsed, if they have a column of their own.

    Raises:
        Unfit: for two such columns.
    """
    named = [name for name in ASKED if row.get(name) is not None]
    if len(named) > 1:
        raise Unfit(f"has {' and '.join(named)}, which both ask", ignore(named[1]))
    more = (row.get("input") or "").strip()
    if not named:
        if more:
            raise Unfit("has an input, and no prompt that it belongs to")
        return []
    cell = json.loads(row[named[0]])
    if more and not isinstance(cell, str):
        raise Unfit(f"has an input, and its {named[0]} is not text that it could stand below")
    if isinstance(cell, str):
        return [{"role": "user", "content": f"{cell}\n\n{row['input']}" if more else cell}]
    if isinstance(cell, list):
        return cell
    raise Unfit(f"{named[0]} is neither a text nor a list of messages")


def _conversation(prompt: list[Any], cell: Any, side: str) -> list[Message]:
    if not isinstance(cell, str | list | dict) or not cell:
        raise Unfit(f"{side} is neither a text nor a list of messages")
    if isinstance(cell, dict):
        cell = [cell]  # one message
    answer = [{"role": "assistant", "content": cell}] if isinstance(cell, str) else cell
    alone = isinstance(answer[0], dict) and answer[0].get("role", answer[0].get("from")) in ("assistant", "gpt")
    if alone and not prompt:
        raise Unfit(f"{side} is an answer, and the row has no prompt")
    messages = parse(json.dumps([*prompt, *answer] if alone else answer), side)
    if not alone and prompt and messages[:-1] != parse(json.dumps(prompt), "prompt"):
        raise Unfit(f"{side} is a conversation that does not begin with the prompt")
    if messages[-1]["role"] != "assistant":
        raise Unfit(f"{side} does not end with an answer")
    return messages
