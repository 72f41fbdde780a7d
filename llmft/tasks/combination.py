"""The answers of several models as one: their mean, or the vote of most."""

from collections.abc import Sequence
from typing import Literal

from llmft.schema.problem import Problem, UserError
from llmft.tasks.task import Answer


def combine(
    answers: Sequence[Sequence[Answer]], how: Literal["mean", "vote"], weights: Sequence[float]
) -> list[Answer]:
    """The answers of all models as one answer a row.

    Three forms are known: one label with the score of each, a list of labels with the score of each, and a number.

    Args:
        answers: of each model, one a row, in the same order.
        weights: of each model; their sum is above 0.

    Raises:
        UserError: for a vote on numbers.
    """
    whole = sum(weights)
    shares = [weight / whole for weight in weights]
    return [_one(row, how, shares) for row in zip(*answers, strict=True)]


def _one(row: Sequence[Answer], how: str, shares: Sequence[float]) -> Answer:
    given = [answer["answer"] for answer in row]
    if not isinstance(given[0], str | list):
        if how == "vote":
            raise UserError(Problem("ensemble", "numbers can't be voted on", hint="Write ensemble=mean."))
        return {"answer": float(sum(share * number for share, number in zip(shares, given, strict=True)))}
    names = list(row[0]["scores"])
    pairs = list(zip(shares, row, strict=True))
    mean = {name: float(sum(share * answer["scores"][name] for share, answer in pairs)) for name in names}
    several = isinstance(given[0], list)
    votes = {name: float(sum(share for share, answer in pairs if _says(answer, name))) for name in names}
    scores = mean if how == "mean" else votes
    if several:
        chosen = [name for name in names if (scores[name], mean[name]) > (0.5, 0.5)]
        return {"answer": chosen, "scores": scores}
    return {"answer": max(names, key=lambda name: (scores[name], mean[name])), "scores": scores}


def _says(answer: Answer, name: str) -> bool:
    said = answer["answer"]
    return name in said if isinstance(said, list) else name == said
