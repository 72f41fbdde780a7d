"""What an explanation is about, and how much of that is left when a part of the input is hidden.

The parts of an image are in images/occlusion.py, words in text/words.py, columns in tables/columns.py. All of them hide
a part, ask the model again, and see what is lost (Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901, section
4.2). That needs nothing of a model but its answers, so it works for every architecture, and for exports.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmft.data.source import Rows
from llmft.tasks.task import Answer

Ask = Callable[[Rows], list[Answer]]
"""Gives the answers of the model to other rows by role, with what `score` alone reads of them."""
LEAST = 1e-9  # scores closer to 0 or 1 than this are not told apart


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
        weighed = [part | {"weight": whole - other} for part, other in zip(parts, others, strict=True)]
        return {"of": self.of, "measure": self.measure, **self.place, "parts": weighed}


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
