"""A question with a context: its right answers, the windows that a model reads, and spans within them."""

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy
from numpy.lib.stride_tricks import sliding_window_view

from llmft.schema.problem import Problem, UserError
from llmft.tasks.text.config import least_context
from llmft.tasks.text.words import Spans, ids_without
from llmft.tasks.tokenizer import Tokenizer

COPY = "Copy it from the context, letter by letter."


def holds_answers(value: Any) -> bool:
    """Whether the JSON of a cell holds answers; `[101]` is the text of one."""
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
    """The right answers of a row, stripped of space; none for a question without an answer.

    Args:
        cell: JSON. As SQuAD has it, a list of {"text": ..., "answer_start": ...}, or {"text": [...], "answer_start":
            [...]}; or a text, or several. Without `answer_start`, a text must occur in the context once.
        start: the `answer_start` of an answer that is a text, if a column has it.
        place: the name of the row in messages.

    Raises:
        UserError: for the first answer that is not at its `answer_start`.
    """
    found = []
    for text, given in _pairs(json.loads(cell), start, place):
        if not isinstance(text, str):
            raise _error(place, f"an answer must be a text, got {text!r}")
        if not text.strip():
            hint = "Where there is none, leave the list of answers empty."
            raise _error(place, f"an answer must have letters, got {text!r}", hint)
        where = _found(text, context, place) if given is None else _checked(text, given, context, place)
        found.append(AnswerSpan(text.strip(), where + len(text) - len(text.lstrip())))
    return found


def answer_texts(cell: str, place: str = "") -> list[str]:
    """The texts of the right answers alone, each once: of a row without a context, where they may stand anywhere.

    Raises:
        UserError: for an answer that is not a text.
    """
    found = [text for text, _ in _pairs(json.loads(cell), None, place)]
    if strange := [text for text in found if not isinstance(text, str) or not text.strip()]:
        raise _error(place, f"an answer must be a text with letters, got {strange[0]!r}")
    return list(dict.fromkeys(text.strip() for text in found))


def _pairs(value: Any, start: float | None, place: str) -> list[tuple[Any, Any]]:
    """Each text with its start, or None if the cell does not say it."""
    if isinstance(value, str):
        return [(value, start)] if value.strip() else []
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return [(value["text"], value.get("answer_start", start))]
    if isinstance(value, dict) and isinstance(texts := value.get("text"), list):
        starts = value.get("answer_start", [None] * len(texts))
        if not isinstance(starts, list):
            raise _error(place, f"answer_start must be a list where text is one, got {starts!r}")
        if len(starts) != len(texts):
            what = f"must have an answer_start for each text, got {len(starts)} for {len(texts)}"
            raise _error(place, f"answers {what}")
        return list(zip(texts, starts, strict=True))
    if isinstance(value, list):
        return [
            (item.get("text"), item.get("answer_start")) if isinstance(item, dict) else (item, None) for item in value
        ]
    hint = 'Write {"text": ["..."], "answer_start": [0]}, or the text alone.'
    raise _error(place, f"answers must hold a text, got {value!r}", hint)


def _found(text: str, context: str, place: str) -> int:
    """The start of a text that must occur once."""
    first = context.find(text)
    if first < 0:
        raise _error(place, f"an answer must be a part of the context, got {text!r}", COPY)
    if context.find(text, first + 1) >= 0:
        what = f"an answer must be in the context once, got {text!r} more than once"
        raise _error(place, what, "Say where with answer_start.")
    return first


def _checked(text: str, start: Any, context: str, place: str) -> int:
    """The start that the cell says, if the text is there."""
    if isinstance(start, bool) or not isinstance(start, int | float) or start != int(start):
        raise _error(place, f"answer_start must be a whole number, got {start!r}")
    begin = int(start)
    if not 0 <= begin < len(context):
        raise _error(place, f"answer_start must be inside the context of {len(context):,} characters, got {begin}")
    if (there := context[begin : begin + len(text)]) != text:
        first = context.find(text)
        hint = f"Write answer_start {first}." if first >= 0 else COPY
        raise _error(place, f"answer {text!r} must stand at its answer_start {begin}, got {there!r} there", hint)
    return begin


def _error(place: str, what: str, hint: str = "") -> UserError:
    return UserError(Problem(place, what, hint=hint), "the data")


@dataclass(frozen=True)
class Window:
    """A part of a context as a model reads it, after the question."""

    row: int
    number: int
    """Of the windows of its row, counted from 0."""
    inputs: dict[str, list[int]]
    """`input_ids`, and `token_type_ids` if the model reads them."""
    none: int
    """The position that means no answer in this window: that of [CLS], the first token of most models."""
    first: int
    """The position of the first token of the context."""
    offsets: numpy.ndarray
    """(2, n) int32: the start and end of each token of the context, in characters of the whole context."""
    cut: bool
    """Whether the question lost some of its words."""

    def tokens(self, start: int, end: int) -> tuple[int, int]:
        """The first and last token of characters `start` to `end`; twice `none` if the window lacks some of them."""
        starts, ends = self.offsets
        if not len(starts) or start < starts[0] or end > ends[-1]:
            return self.none, self.none
        begin = int(numpy.searchsorted(ends, start, side="right"))  # the first that ends after it
        last = int(numpy.searchsorted(starts, end, side="left")) - 1  # the last that starts before its end
        return (self.first + begin, self.first + last) if begin <= last else (self.none, self.none)

    def aside(self, context: str) -> dict[str, Any]:
        """What `best_span` needs to know of it, for the feature's `aside`."""
        at, end = (int(self.offsets[0, 0]), int(self.offsets[1, -1])) if self.offsets.size else (0, 0)
        found = {"number": self.number, "none": self.none, "first": self.first, "at": at, "text": context[at:end]}
        return found | {"offsets": (self.offsets - at).tobytes()}


def windows(
    questions: list[str],
    contexts: list[str],
    tokenizer: Tokenizer,
    length: int,
    stride: int,
    hidden: list[Spans] | None = None,
) -> Iterator[Window]:
    """The windows of each row in turn.

    Args:
        length: tokens of a window, with the question and special tokens.
        stride: tokens of the context that two windows share.
        hidden: the spans of each row that the model does not see; see words.py.
    """
    most = length - least_context(length) - tokenizer.backend.num_special_tokens_to_add(True)
    fitting = _fitting(questions, tokenizer, most)
    encoded = tokenizer.encode(fitting, contexts, max_length=length, cut="only_second", stride=stride)
    parts = ((row, *found) for row, whole in enumerate(encoded) for found in enumerate((whole, *whole.overflowing)))
    for row, number, encoding in parts:
        spans = hidden[row] if hidden else []
        inputs = {"input_ids": ids_without(encoding, spans, ("question", "context"), tokenizer, in_place=True)}
        if tokenizer.reads_types:
            inputs["token_type_ids"] = encoding.type_ids
        of_context = [place for place, part in enumerate(encoding.sequence_ids) if part == 1]
        first = of_context[0] if of_context else 0
        places = _with_marks(encoding.offsets[first : first + len(of_context)], contexts[row])
        offsets = numpy.array(places, dtype=numpy.int32).reshape(-1, 2).T
        none = encoding.ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in encoding.ids else 0
        yield Window(row, number, inputs, none, first, offsets, cut=fitting[row] != questions[row])


def _with_marks(spans: list[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """The spans of tokens, each with the combining marks after it that belong to no token.

    BERT drops these marks, as it does accents: an answer in Hindi would lose its last vowel.
    """
    if text.isascii():
        return spans
    found = []
    for (start, end), limit in zip(spans, [*(start for start, _ in spans[1:]), len(text)], strict=False):
        while end < limit and unicodedata.category(text[end]).startswith("M"):
            end += 1
        found.append((start, end))
    return found


def _fitting(questions: list[str], tokenizer: Tokenizer, most: int) -> list[str]:
    """The questions, each cut to `most` tokens."""
    encoded = tokenizer.encode(questions, special=False)
    found = []
    for question, encoding in zip(questions, encoded, strict=True):
        while len(encoding.ids) > most:  # again, if a word that is cut in the middle has more tokens than before
            question = question[: encoding.offsets[most][0]].rstrip()
            (encoding,) = tokenizer.encode([question], special=False)
        found.append(question)
    return found


class Span(NamedTuple):
    """The likeliest part of a window, or of several."""

    score: float
    """log p(first token) + log p(last token), each over all tokens of the window; -inf without a context."""
    text: str
    start: int | None
    """Its first character in the whole context; None if there is no span."""
    none: float
    """log p that there is no answer."""


def best_span(logits: numpy.ndarray, window: dict[str, Any], longest: int) -> Span:
    """The likeliest span of a window, of at most `longest` tokens.

    Args:
        logits: (2, tokens), for the first and the last token of an answer.
        window: as `Window.aside` made it.
    """
    # log softmax in numpy, with the maximum subtracted so that exp cannot overflow.
    highest = logits.max(axis=1, keepdims=True)
    scores = logits - highest - numpy.log(numpy.exp(logits - highest).sum(axis=1, keepdims=True))
    none = float(scores[:, window["none"]].sum())
    starts, ends = numpy.frombuffer(window["offsets"], dtype=numpy.int32).reshape(2, -1)
    if not len(starts):
        return Span(-numpy.inf, "", None, none)
    first, last = scores[:, window["first"] : window["first"] + len(starts)]
    # All pairs at once: row i of the view has the ends i to i + longest - 1. The padding of -inf ends no answer.
    padded = numpy.concatenate([last, numpy.full(longest - 1, -numpy.inf, dtype=last.dtype)])
    pairs = first[:, None] + sliding_window_view(padded, longest)  # (start, end - start)
    begin, more = divmod(int(pairs.argmax()), longest)
    start, end = int(starts[begin]), int(ends[begin + more])
    text = window["text"][start:end]
    start += len(text) - len(text.lstrip())  # to some tokenizers, the space before a word is a part of its token
    return Span(float(pairs[begin, more]), text.strip(), window["at"] + start, none)


def rows_of(asides: list[dict[str, Any]]) -> list[int]:
    """The row of each window, if the windows of a row follow each other."""
    return [count - 1 for count in accumulate(int(aside["number"] == 0) for aside in asides)]


def best_of_windows(spans: list[Span]) -> Span:
    """The likeliest span of a row; `none` is that of the window in which it is least likely."""
    # A window without the answer says "none" for sure. So the row has no answer only if every window says so.
    return max(spans, key=lambda span: span.score)._replace(none=min(span.none for span in spans))
