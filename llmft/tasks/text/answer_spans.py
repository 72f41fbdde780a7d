"""The cell `answers`: where in a context the right answers of a question stand."""

import json
from dataclasses import dataclass
from typing import Any

from llmft.schema.problem import Problem, UserError


def holds_answers(value: Any) -> bool:
    """Whether the JSON of a cell is of answers; `[101]` is the text of one."""
    if isinstance(value, dict):
        return "text" in value
    return isinstance(value, list) and all(isinstance(one, str) or holds_answers(one) for one in value)


@dataclass(frozen=True)
class AnswerSpan:
    """A part of a context."""

    text: str
    start: int
    """Its first character, counted from 0."""

    @property
    def end(self) -> int:
        """The character after its last."""
        return self.start + len(self.text)


def read_answers(cell: str, start: float | None, context: str, place: str = "") -> list[AnswerSpan]:
    """The right answers of a row, without the space around them; none for a question without an answer.

    Args:
        cell: JSON. As SQuAD has it, a list of {"text": ..., "answer_start": ...}, or {"text": [...], "answer_start":
            [...]}; or a text, or several. Without `answer_start` a text must stand in the context once.
        start: that of an answer which is a text, where a column holds it.
        place: what messages call the row.

    Raises:
        UserError: for the first answer that does not stand where it is said to.
    """
    found = []
    for text, given in _pairs(json.loads(cell), start, place):
        if not isinstance(text, str):
            raise _error(place, f"answer {text!r} is no text")
        if not text.strip():
            raise _error(place, "an answer is empty", "Where there is none, leave the list of answers empty.")
        where = _found(text, context, place) if given is None else _checked(text, given, context, place)
        found.append(AnswerSpan(text.strip(), where + len(text) - len(text.lstrip())))
    return found


def _pairs(value: Any, start: float | None, place: str) -> list[tuple[Any, Any]]:
    """Each text with where it starts, or None where that is not said."""
    if isinstance(value, str):
        return [(value, start)] if value.strip() else []
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return [(value["text"], value.get("answer_start", start))]
    if isinstance(value, dict) and isinstance(texts := value.get("text"), list):
        starts = value.get("answer_start", [None] * len(texts))
        if not isinstance(starts, list):
            raise _error(place, f"`text` of answers is a list, and `answer_start` is {starts!r}")
        if len(starts) != len(texts):
            raise _error(place, f"answers has {len(texts)} of `text` and {len(starts)} of `answer_start`")
        return list(zip(texts, starts, strict=True))
    if isinstance(value, list):
        return [
            (item.get("text"), item.get("answer_start")) if isinstance(item, dict) else (item, None) for item in value
        ]
    hint = 'Write {"text": ["..."], "answer_start": [0]}, or the text alone.'
    raise _error(place, f"answers is {value!r}, which holds no text", hint)


def _found(text: str, context: str, place: str) -> int:
    """Where a text stands that must stand there once."""
    first = context.find(text)
    if first < 0:
        hint = "An answer is a part of the context, letter by letter."
        raise _error(place, f"answer {text!r} is not in the context", hint)
    if context.find(text, first + 1) >= 0:
        raise _error(place, f"answer {text!r} is in the context more than once", "Say where with answer_start.")
    return first


def _checked(text: str, start: Any, context: str, place: str) -> int:
    """Where a text is said to stand, if it does."""
    if isinstance(start, bool) or not isinstance(start, int | float) or start != int(start):
        raise _error(place, f"answer_start is {start!r}, no whole number")
    begin = int(start)
    if not 0 <= begin < len(context):
        raise _error(place, f"answer_start {begin} is outside the context of {len(context):,} characters")
    if (there := context[begin : begin + len(text)]) != text:
        first = context.find(text)
        hint = f"It stands at {first}." if first >= 0 else "An answer is a part of the context, letter by letter."
        raise _error(place, f"answer {text!r} is not what stands at {begin}: {there!r}", hint)
    return begin


def _error(place: str, what: str, hint: str = "") -> UserError:
    return UserError(Problem(place, what, hint=hint), "the data")
