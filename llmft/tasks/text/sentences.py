"""One form for rows of tokens with tags and rows of a text with spans: a text, its words, and their tags."""

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import regex

from llmft.data.annotated import OUTSIDE, Span, spans, to_bio
from llmft.data.source import Rows, listed
from llmft.schema.problem import Problem, plural

# Scripts without spaces between words: each of their characters is a word, with its combining marks.
ALONE = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
# Letters, digits, and marks; U+200C and U+200D join letters inside words of Persian and Indian scripts.
LETTERS = rf"[[\p{{L}}\p{{N}}\p{{M}}\u200c\u200d]--{ALONE}]"
WORD = regex.compile(rf"(?V1){ALONE}\p{{M}}*|{LETTERS}+|(?!\s)\X")


def split(text: str) -> list[tuple[int, int]]:
    """The start and end of each word: letters and digits, or one punctuation mark, emoji, or Chinese character."""
    return [match.span() for match in WORD.finditer(text)]


HINT = "Tags are O, or B-, I-, E- or S- and a label, such as B-person; spans are {start, end, label}."

Entity = dict[str, Any]
"""`text`, `label`, `start`, and `end`: the characters `start` to `end` - 1 of the text of the sentence."""


@dataclass(frozen=True)
class Sentence:
    """A text and its words."""

    text: str
    """The text of the row, or its tokens joined by spaces."""
    words: list[tuple[int, int]]
    """The characters of each word: the first, and the one after the last."""
    tags: list[str] | None
    """The BIO tag of each word; None if the row has neither tags nor spans."""
    widened: int = 0
    """How many spans began or ended inside a word, and were widened to whole words."""

    @property
    def tokens(self) -> list[str]:
        """The words as texts."""
        return [self.text[start:end] for start, end in self.words]

    def entity(self, span: Span) -> Entity:
        """The entity that a span of words is."""
        first, after, kind = span
        start, end = self.words[first][0], self.words[after - 1][1]
        return {"text": self.text[start:end], "label": kind, "start": start, "end": end}

    @property
    def labels(self) -> list[str]:
        """The labels of its entities, each once."""
        return sorted({label for _, _, label in spans(self.tags or [])})

    @property
    def entities(self) -> list[Entity]:
        """The entities that the tags mark."""
        return [self.entity(span) for span in spans(self.tags or [])]


def is_labeled(rows: Rows) -> bool:
    """Whether rows have references: tags or spans."""
    return not {"tags", "spans"}.isdisjoint(rows.column_names)


def read(rows: Rows, split: str) -> tuple[list[Sentence], list[Problem]]:
    """The sentences of rows with references, and a problem for each row whose reference is wrong or missing."""
    found: list[Sentence] = []
    problems: list[Problem] = []
    for row in rows:
        try:
            sentence = sentence_of(row)
        except ValueError as error:
            problems.append(Problem(row["id"], f"{error} ({split})", hint=HINT))
            continue
        found.append(sentence)
        if sentence.tags is None:
            problems.append(Problem(row["id"], f"has neither tags for its tokens nor spans for its text ({split})"))
    return found, listed(problems)


def sentence_of(row: dict[str, Any], of_tokens: bool = True) -> Sentence:
    """The words of a row, and their tags if it has any.

    A row may have both tokens and a text: tags are of its tokens, spans of its text.

    Args:
        of_tokens: whether tokens are taken if there are neither tags nor spans.

    Raises:
        ValueError: with what is wrong with its tags or spans.
    """
    tokens, tags, text, spans = (row.get(role) for role in ("tokens", "tags", "text", "spans"))
    if tokens is not None and (text is None or tags is not None or (spans is None and of_tokens)):
        return _of_tokens(tokens, tags)
    assert text is not None
    return _of_text(text, spans)


def _of_tokens(tokens: list[str], tags: list[str] | None) -> Sentence:
    words = []
    place = 0
    # Tokens are joined by one space. In Chinese that adds spaces, but offsets and tokens agree in every script.
    for token in tokens:
        words.append((place, place + len(token)))
        place += len(token) + 1
    if tags is not None and len(tags) != len(tokens):
        got = f"{plural(len(tokens), 'tokens')} and {plural(len(tags), 'tags')}"
        raise ValueError(f"must have a tag for each token, got {got}")
    return Sentence(" ".join(tokens), words, None if tags is None else to_bio(tags))


def _of_text(text: str, spans: str | None) -> Sentence:
    words = split(text)
    if spans is None:
        return Sentence(text, words, None)
    marked = sorted((_span(entry, text) for entry in _list(spans)), key=lambda span: span[:2])
    # Sorted by start, only neighbors can be the first to overlap.
    for (start, end, kind), (begin, stop, other) in pairwise(marked):
        if begin < end:
            raise ValueError(f"spans must not overlap, got {start} to {end} ({kind}) and {begin} to {stop} ({other})")
    tags = [OUTSIDE] * len(words)
    widened = 0
    for start, end, kind in marked:
        # Every word that the span touches: tags are of whole words, so a span inside a word is widened.
        covered = [place for place, (first, after) in enumerate(words) if first < end and after > start]
        if not covered:
            raise ValueError(f"a span must hold a word, got {start} to {end} ({kind})")
        if tags[covered[0]] != OUTSIDE:
            word = text[slice(*words[covered[0]])]
            got = f"{word!r} in {start} to {end} ({kind}) and in the one before it"
            raise ValueError(f"two spans must not share a word, got {got}")
        for place in covered:
            tags[place] = f"I-{kind}"
        tags[covered[0]] = f"B-{kind}"
        widened += (words[covered[0]][0], words[covered[-1]][1]) != (start, end)
    return Sentence(text, words, tags, widened)


def _list(spans: str) -> list[Any]:
    found = json.loads(spans)
    if not isinstance(found, list):
        raise ValueError(f"spans must be a list of {{start, end, label}}, got {spans[:60]}")
    return found


def _span(entry: Any, text: str) -> Span:
    """The start, end, and label of a span.

    Raises:
        ValueError: for one that says no such things, or is not of this text.
    """
    if isinstance(entry, list) and len(entry) == 3:  # as spaCy and doccano have it
        entry = dict(zip(("start", "end", "label"), entry, strict=True))
    elif isinstance(entry, dict) and "label" in entry and {"start_offset", "end_offset"} <= entry.keys():  # doccano
        entry = {"start": entry["start_offset"], "end": entry["end_offset"], "label": entry["label"]}
    elif isinstance(entry, dict) and isinstance(labels := entry.get("labels"), list) and len(labels) == 1:
        entry = {"label": labels[0], **entry}  # Label Studio's small export
    whole = isinstance(entry, dict) and {"start", "end", "label"} <= entry.keys()
    if not whole or not isinstance(entry["label"], str) or not entry["label"].strip():
        raise ValueError(f"a span must be {{start, end, label}}, got {json.dumps(entry, ensure_ascii=False)}")
    start, end, kind = entry["start"], entry["end"], entry["label"].strip()
    # bool is an int in Python: `true` as a start would count as 1.
    if any(isinstance(place, bool) or not isinstance(place, int) for place in (start, end)):
        raise ValueError(f"a span must begin and end at whole numbers, got {start!r} to {end!r} ({kind})")
    if start < 0 or end > len(text):
        raise ValueError(f"a span must lie inside the text of {len(text)} characters, got {start} to {end} ({kind})")
    if start >= end:
        raise ValueError(f"a span must end behind its start, got {start} to {end} ({kind})")
    return start, end, kind
