"""From a row to two conversations that differ in their last answer: the one that was chosen, and the other."""

import json
from typing import Any

from llmft.schema.column import Column
from llmft.tasks.conversations import Form, Message, Unfit, parse

COLUMNS = {
    "prompt": Column("json", required=False),
    "chosen": Column("json"),
    "rejected": Column("json"),
}
"""The roles of a task that compares answers: each a text, or a list of messages."""


def form_of(row: dict[str, Any]) -> Form:
    """How the rows of a set hold pairs, told from the first of them."""
    if (row.get("prompt") or "").startswith('"'):
        return Form("a prompt with two answers", "prompt", "chosen")
    return Form("pairs of conversations", "chosen")


def pair(row: dict[str, Any]) -> tuple[list[Message], list[Message]]:
    """The conversations with the chosen and with the rejected answer, alike up to it.

    An answer is a text, a message, or a whole conversation that ends with it.

    Raises:
        Unfit: with the reason.
    """
    asked = row.get("prompt")
    prompt = _prompt(json.loads(asked)) if asked is not None else []
    chosen, rejected = (_conversation(prompt, json.loads(row[side]), side) for side in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise Unfit("chosen and rejected answer different prompts")
    if chosen == rejected:
        raise Unfit("chosen and rejected are the same answer")
    return chosen, rejected


def _prompt(cell: Any) -> list[Any]:
    if isinstance(cell, str):
        return [{"role": "user", "content": cell}]
    if isinstance(cell, list):
        return cell
    raise Unfit("prompt is neither a text nor a list of messages")


def _conversation(prompt: list[Any], cell: Any, side: str) -> list[Message]:
    if not isinstance(cell, str | list) or not cell:
        raise Unfit(f"{side} is neither a text nor a list of messages")
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
