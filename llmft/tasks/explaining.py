"""What an explanation is about, and how much of that is left when a part of the input is hidden.

The parts of an image are in images/occlusion.py, words in text/words.py, columns in tables/columns.py. All of them hide
a part, ask the model again, and see what is lost (Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901, section
4.2). That needs nothing of a model but its answers, so it works for every architecture, and for exports.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy

from llmft.data.source import Rows
from llmft.tasks.task import Answer, Task

if TYPE_CHECKING:
    from llmft.tasks.optional import Explains

Ask = Callable[[Rows], list[Answer]]
"""Gives the answers of the model to other rows by role, with what `score` alone reads of them."""
SHOWN = 64  # tokens in a picture of attention; of more of them those that get the most
LEAST = 1e-9  # scores closer to 0 or 1 than this are not told apart


class Attention(NamedTuple):
    """Where each layer of a model looks for an answer."""

    shares: numpy.ndarray
    """(layers, tokens): the share of its attention that each token gets from those that the answer is read from, a mean
    over the heads."""
    heads: int
    ids: list[int] | None
    """The tokens of a text."""
    patches: tuple[int, int] | None
    """Rows and columns of the parts of an image, which are the last of the tokens."""


@runtime_checkable
class Introspects(Protocol):
    """An `Ask` of a torch model, which shows more than answers; see training/introspection.py."""

    def __call__(self, rows: Rows) -> list[Answer]:
        """The answers to rows by role."""

    def integrate(
        self, row: Rows, tokens: Sequence[int], mask: int, strength: Callable[[Answer], float]
    ) -> list[float] | None:
        """The weights of tokens by integrated gradients of the strength; None where that is not possible."""

    def attention(self, rows: Rows) -> list[Attention | None]:
        """Where the layers look for the answer to each row; None for a model that does not tell."""


def explained(task: Task[Any], rows: Rows, answers: list[Answer], ask: Ask) -> list[dict[str, Any]]:
    """What a task says of answers, see `Explains.explain`, with the attention of models that give it.

    Attention is no explanation, and is kept apart from the weights: hiding the words that get the most of it lowers
    scores by 0.05 more than random words, hiding those with the largest weights by 0.12.
    """
    if TYPE_CHECKING:
        assert isinstance(task, Explains)
    found = task.explain(rows, answers, ask)
    if not isinstance(ask, Introspects):
        return found
    given = ask.attention(rows)
    cells = rows["image"] if "image" in rows.column_names else [None] * len(found)
    return [
        one | ({"attention": shown} if looks and (shown := _shown(task, looks, cell)) else {})
        for one, looks, cell in zip(found, given, cells, strict=True)
    ]


def _shown(task: Task[Any], looks: Attention, cell: Any) -> dict[str, Any] | None:
    """Attention as answers have it: `tokens` of a text, or `parts` of an image, with the share of each layer."""
    shares = looks.shares
    head = {"layers": len(shares), "heads": looks.heads}
    if looks.patches and cell:
        from llmft.tasks.images.occlusion import patch_boxes

        boxes = patch_boxes(cell, task.state, *looks.patches)
        weights = shares[-1, -len(boxes) :]
        parts = [{"box": box, "weight": round(float(w), 5)} for box, w in zip(boxes, weights, strict=True)]
        return head | {"parts": parts}
    if looks.ids is None or not hasattr(task.state, "tokenizer"):
        return None
    kept = sorted(numpy.argsort(-shares.mean(axis=0), kind="stable")[:SHOWN].tolist())
    tokens = [
        {
            "text": task.state.tokenizer.decode([looks.ids[n]]).strip(),
            "shares": [round(float(s), 4) for s in shares[:, n]],
        }
        for n in kept
    ]
    return head | {"of": len(looks.ids), "tokens": tokens}


@dataclass(frozen=True)
class Subject:
    """What is explained of the answer to a row."""

    of: str | float
    """A label, or the number that was predicted."""
    measure: str
    """What the weights are in, for people: `log-odds`, `number`, `score`, or `share`."""
    strength: Callable[[Answer], float]
    """How much of it another answer has."""
    place: dict[str, Any] = field(default_factory=dict)
    """Where it is, if it is a part of the input: the `box` of an object, or the `start` and `end` of a span."""

    def explanation(self, parts: Sequence[dict[str, Any]], whole: float, others: Sequence[float]) -> dict[str, Any]:
        """The parts with their weights: how much is lost where a part is hidden.

        Args:
            whole: `strength` of the answer to the whole input. It has to be asked together with the parts: in another
                batch, or resized once less, it might differ a little.
            others: that of the answer without each part.
        """
        return self.weighed(parts, [whole - other for other in others])

    def weighed(self, parts: Sequence[dict[str, Any]], weights: Sequence[float]) -> dict[str, Any]:
        """The same, from weights that were found in another way."""
        found = [part | {"weight": weight} for part, weight in zip(parts, weights, strict=True)]
        return {"of": self.of, "measure": self.measure, **self.place, "parts": found}


NOTHING: dict[str, Any] = {"of": None, "measure": None, "parts": []}
"""The explanation of an answer without anything in it, such as an image without objects."""


def of_target(answer: Answer) -> Subject:
    """The most probable label, in log-odds, which probabilities near 1 do not hide; or the predicted number."""
    if "scores" not in answer:
        return Subject(float(answer["answer"]), "number", lambda other: float(other["answer"]))
    label = max(answer["scores"], key=answer["scores"].__getitem__)
    return Subject(label, "log-odds", lambda other: log_odds(other["scores"][label]))


def log_odds(score: float) -> float:
    """The logarithm of score / (1 - score)."""
    score = min(max(score, LEAST), 1 - LEAST)
    return math.log(score / (1 - score))


def of_surest(
    answer: Answer, place: tuple[str, ...], overlap: Callable[[dict[str, Any], dict[str, Any]], float]
) -> Subject | None:
    """The part of an answer with the highest score: an object, or an entity; None if the answer has no parts.

    How much of it is left is the largest product of score and overlap of a part with the same label, after Petsiuk et
    al. 2021 (https://arxiv.org/abs/2006.03204, section 3.2): an object may get another box, or the score of another.

    Args:
        place: the keys of a part that say where it is.
        overlap: of two parts, from 0 to 1.
    """
    if not answer["answer"]:
        return None
    surest = max(answer["answer"], key=lambda part: float(part["score"]))

    def strength(other: Answer) -> float:
        alike = (part for part in (*other["answer"], *other.get("others", ())) if part["label"] == surest["label"])
        return max((float(part["score"]) * overlap(surest, part) for part in alike), default=0.0)

    return Subject(surest["label"], "score", strength, {key: surest[key] for key in place})


def span_overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Intersection over union of two spans of characters, `start` to `end`."""
    shared = min(one["end"], other["end"]) - max(one["start"], other["start"])
    whole = max(one["end"], other["end"]) - min(one["start"], other["start"])
    return max(shared, 0) / max(whole, 1)
