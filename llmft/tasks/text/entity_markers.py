"""A text with two marked entities: by `<e1>..</e1>` and `<e2>..</e2>` in it, or by the characters `head` and `tail`."""

import json
import re
from dataclasses import dataclass
from typing import Any

ENTITIES = ("e1", "e2")
MARK = re.compile(r"</?e[12]>")
HINT = "Write <e1>..</e1> and <e2>..</e2> around the two entities, or give their characters as head and tail."

Span = tuple[int, int]


@dataclass(frozen=True)
class Marked:
    """A text without marks, and the characters of its two entities, the end excluded."""

    text: str
    head: Span
    tail: Span

    def __str__(self) -> str:
        """The text as reports show it: `The [fire]₁ was caused by [lightning]₂.`"""
        found = self.text
        for (start, end), number in sorted(((self.head, "₁"), (self.tail, "₂")), reverse=True):
            found = f"{found[:start]}[{found[start:end]}]{number}{found[end:]}"
        return found


class Unfit(Exception):
    """Why the entities of a text cannot be marked, in a few words, and what to write instead."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


def plain(text: str) -> str:
    """The text without marks, whether they are well-formed or not."""
    return MARK.sub("", text)


def read(text: str, head: str | None = None, tail: str | None = None) -> Marked:
    """The text of a row with its entities.

    Args:
        head: the characters of the first entity as JSON, `[start, end]`, counted as Unicode does; or nothing.
        tail: those of the second, which may stand before the first.

    Raises:
        Unfit: if the entities are not marked, are marked in two ways, or overlap.
    """
    spans = {name: span for name, cell in (("head", head), ("tail", tail)) if (span := _value(cell)) is not None}
    if not spans:
        found = _by_marks(text)
    elif MARK.search(text):
        raise Unfit(f"has marks in its text and {' and '.join(spans)} beside it: one of the two is enough")
    elif len(spans) == 1:
        raise Unfit(f"has {next(iter(spans))} alone")
    else:
        found = Marked(text, *(_checked(name, span, text) for name, span in spans.items()))
    for name, (start, end) in zip(ENTITIES, (found.head, found.tail), strict=True):
        if not found.text[start:end].strip():
            raise Unfit(f"has nothing in {name}")
    if found.head[0] < found.tail[1] and found.tail[0] < found.head[1]:
        raise Unfit("has entities that overlap")
    return found


def _value(cell: str | None) -> Any:
    """The value of a cell of JSON; None for an empty one."""
    value = None if cell is None else json.loads(cell)
    return None if value == "" else value


def _checked(name: str, span: Any, text: str) -> Span:
    whole = isinstance(span, list) and len(span) == 2 and all(type(place) is int for place in span)
    if not whole:
        raise Unfit(f"has the {name} {json.dumps(span, ensure_ascii=False)}, which is not [start, end]")
    start, end = span
    if not 0 <= start <= end <= len(text):
        raise Unfit(f"has the {name} [{start}, {end}], and its text has the characters 0 to {len(text)}")
    return start, end


def _by_marks(text: str) -> Marked:
    places: dict[str, int] = {}
    removed = 0
    for mark in MARK.finditer(text):
        if mark[0] in places:
            raise Unfit(f"has {mark[0]} twice")
        places[mark[0]] = mark.start() - removed
        removed += len(mark[0])
    wanted = [mark for name in ENTITIES for mark in (f"<{name}>", f"</{name}>")]
    if missing := [mark for mark in wanted if mark not in places]:
        raise Unfit(f"has no {' and no '.join(missing)}", HINT)
    spans = [(places[f"<{name}>"], places[f"</{name}>"]) for name in ENTITIES]
    for name, (start, end) in zip(ENTITIES, spans, strict=True):
        if start > end:
            raise Unfit(f"closes {name} before it opens it")
    return Marked(plain(text), spans[0], spans[1])
