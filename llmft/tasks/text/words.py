"""Which words of a text speak for an answer: each is hidden in turn, and the model is asked again.

Of a long text, a torch model is asked by integrated gradients instead, see training/introspection.py.

Rows that are asked have one more column, HIDDEN: the spans of their texts that the model does not see. The tokens of
these spans become the mask token, so that all others stay as they were, and so do the places of answers in the text.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

from tokenizers import Encoding

from llmft.data.source import Rows, Table
from llmft.tasks.explaining import Ask, Introspects, Subject
from llmft.tasks.text.sentences import split
from llmft.tasks.tokenizer import Tokenizer

HIDDEN = "hidden"
MOST = 100  # rows that are asked for a text: 0.3 s of a small BERT on one core
GROUPS = 40  # parts of a longer text at first; the other rows are for the words of those that matter
PIECES = 8  # parts that a group is divided into
DROPPED = -1
"""A token that is left out, since its tokenizer has no mask token."""

Spans = list[dict[str, Any]]
"""Each with `role`, the column of its text, `start`, and `end`."""


Word = tuple[str, int, int]
"""The role of its text, its first character, and the one after its last."""


class Tokens(NamedTuple):
    """Where the tokens of a row are from, for a task that makes one feature of a row."""

    spans: list[Word | None]
    """Of each token; None for one that is of no text."""
    mask: int
    """The token in the place of a hidden one."""


def explain_words(
    row: dict[str, Any], texts: dict[str, str], subject: Subject, ask: Ask, tokens: Tokens | None = None
) -> dict[str, Any]:
    """What speaks for an answer, and how much.

    Of MOST words or more, a torch model gives integrated gradients. Else groups are hidden first. The group with the
    largest weight is then divided, again and again, until MOST rows are asked: so the words that matter are found, and
    the rest stays in groups.

    Args:
        row: its input columns.
        texts: those whose words are hidden, by role.
        tokens: those that the model reads; None where that is all of the texts. Words behind them are in no part.

    Returns:
        see `Subject.explanation`. Each part has `role`, `start`, `end`, and `text`.
    """
    unread: dict[str, int] | None = None
    if tokens:
        ends = [(role, end) for role, _, end in filter(None, tokens.spans)]
        unread = {role: max((end for other, end in ends if other == role), default=0) for role in texts}
    words = [
        (role, start, end)
        for role, text in texts.items()
        for start, end in split(text)
        if unread is None or start < unread.get(role, len(text))
    ]
    if tokens and len(words) >= MOST and isinstance(ask, Introspects):
        weights = _integrated(row, words, subject, ask, tokens)
        if weights is not None:
            parts = [_span([word]) | {"text": texts[word[0]][word[1] : word[2]]} for word in words]
            return subject.weighed(parts, weights) | {"method": "integrated gradients", "why": _why(len(words))}
    groups = _divided(words, len(words) if len(words) < MOST else GROUPS)
    whole, *found = _asked(row, [[], *groups], subject, ask)
    left = MOST - 1 - len(groups)
    weighed = list(zip(groups, (whole - strength for strength in found), strict=True))
    while left > 1 and (wide := [pair for pair in weighed if len(pair[0]) > 1]):
        widest = max(wide, key=lambda pair: abs(pair[1]))
        pieces = _divided(widest[0], min(PIECES, left))
        strengths = _asked(row, pieces, subject, ask)
        weighed.remove(widest)
        weighed += zip(pieces, (whole - strength for strength in strengths), strict=True)
        left -= len(pieces)
    order = list(texts)
    weighed.sort(key=lambda pair: (order.index(pair[0][0][0]), pair[0][0][1]))
    parts = [_span(group) for group, _ in weighed]
    parts = [part | {"text": texts[part["role"]][part["start"] : part["end"]]} for part in parts]
    return subject.explanation(parts, whole, [whole - weight for _, weight in weighed])


def _integrated(
    row: dict[str, Any], words: list[Word], subject: Subject, ask: Introspects, tokens: Tokens
) -> list[float] | None:
    """The weight of each word, which is that of its tokens together; None if the model does not give them."""
    owners = {(role, place): number for number, (role, *ends) in enumerate(words) for place in range(*ends)}
    owned: dict[int, int] = {}
    for number, span in enumerate(tokens.spans):
        # A token may begin with the space before its word, or be longer than a word: the first one has it.
        characters = () if span is None else ((span[0], place) for place in range(*span[1:]))
        if (word := next((owners[each] for each in characters if each in owners), None)) is not None:
            owned[number] = word
    found = ask.integrate(
        Table({name: [value] for name, value in row.items()}, ["0"]), list(owned), tokens.mask, subject.strength
    )
    if found is None:
        return None
    weights = [0.0] * len(words)
    for word, weight in zip(owned.values(), found, strict=True):
        weights[word] += weight
    return weights


def _why(words: int) -> str:
    return f"{words} words: hiding each alone would take {words + 1} passes, and {MOST} are allowed"


def _divided(words: list[Word], count: int) -> list[list[Word]]:
    """Words in about `count` groups of equal length, of one text each."""
    size = max(ceil(len(words) / max(count, 1)), 1)
    roles = dict.fromkeys(role for role, _, _ in words)
    found = []
    for role in roles:
        own = [word for word in words if word[0] == role]
        found += [own[start : start + size] for start in range(0, len(own), size)]
    return found


def _span(group: list[Word]) -> dict[str, Any]:
    return {"role": group[0][0], "start": group[0][1], "end": group[-1][2]}


def _asked(row: dict[str, Any], groups: list[list[Word]], subject: Subject, ask: Ask) -> list[float]:
    """How much of the subject is left without each group of words."""
    columns: dict[str, list[Any]] = {name: [value] * len(groups) for name, value in row.items()}
    columns[HIDDEN] = [[_span(group)] if group else [] for group in groups]
    return list(map(subject.strength, ask(Table(columns, list(map(str, range(len(groups))))))))


def input_rows(rows: Rows, roles: Sequence[str]) -> list[dict[str, Any]]:
    """The rows one by one, with these columns alone, as far as they are there."""
    return [{name: row[name] for name in roles if name in row} for row in rows]


def hidden_of(rows: dict[str, list[Any]]) -> list[Spans]:
    """What each row hides; nothing, except for rows of an explanation."""
    return rows.get(HIDDEN) or [[] for _ in next(iter(rows.values()))]


def ids_without(
    encoding: Encoding, spans: Spans, roles: Sequence[str], tokenizer: Tokenizer, in_place: bool = False
) -> list[int]:
    """The tokens of a text, or of two, without those of hidden spans.

    Args:
        roles: of the first text, and of the second.
        in_place: whether every token must stay where it is. Else a tokenizer without a mask token leaves tokens out:
            they are DROPPED.
    """
    ids: list[int] = encoding.ids
    if not spans:
        return ids
    mask = mask_id(tokenizer, in_place)
    for place, (part, (start, end)) in enumerate(zip(encoding.sequence_ids, encoding.offsets, strict=True)):
        # A token may begin with the space before its word: any overlap counts.
        if part is not None and any(
            span["role"] == roles[part] and start < span["end"] and end > span["start"] for span in spans
        ):
            ids[place] = mask
    return ids


def mask_id(tokenizer: Tokenizer, in_place: bool) -> int:
    """The token in the place of a hidden one."""
    tokens = [tokenizer.mask_token_id]
    if in_place:
        tokens += [tokenizer.unk_token_id, tokenizer.pad_token_id, 0]
    return next((token for token in tokens if token is not None), DROPPED)
