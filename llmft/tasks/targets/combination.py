"""The answers of several models as one: their mean, or the vote of most."""

from collections.abc import Mapping, Sequence
from typing import Literal

from llmft.schema.problem import Problem, UserError
from llmft.tasks.task import Answer


def combine(
    answers: Sequence[Sequence[Answer]],
    how: Literal["mean", "vote"],
    weights: Sequence[float],
    thresholds: Sequence[Mapping[str, float]],
) -> list[Answer]:
    """The answers of all models as one answer a row.

    Three forms are known: one label with the score of each, a list of labels with the score of each, and a number.

    Args:
        answers: of each model, one a row, in the same order.
        weights: of each model; their sum is above 0.
        thresholds: of each model, by label, as `Task.thresholds_by_label` has them. A mean of scores is held against
            the mean of the thresholds.

    Raises:
        UserError: for a vote on numbers.
    """
    whole = sum(weights)
    shares = [weight / whole for weight in weights]
    pairs = list(zip(shares, thresholds, strict=True))
    cuts = {name: sum(share * own[name] for share, own in pairs) for name in thresholds[0]}
    return [_one(row, how, shares, cuts) for row in zip(*answers, strict=True)]


def _one(row: Sequence[Answer], how: str, shares: Sequence[float], cuts: Mapping[str, float]) -> Answer:
    given = [answer["answer"] for answer in row]
    if not isinstance(given[0], str | list):
        if how == "vote":
            raise UserError(Problem("ensemble", "numbers cannot be voted on", hint="Write ensemble=mean."))
        return {"answer": float(sum(share * number for share, number in zip(shares, given, strict=True)))}
    names = list(row[0]["scores"])
    pairs = list(zip(shares, row, strict=True))
    mean = {name: float(sum(share * answer["scores"][name] for share, answer in pairs)) for name in names}
    several = isinstance(given[0], list)
    votes = {name: float(sum(share for share, answer in pairs if _says(answer, name))) for name in names}
    above = {name: mean[name] - cuts.get(name, 0.0) for name in names}
    if how == "mean":
        answer = [name for name in names if above[name] >= 0] if several else max(names, key=above.__getitem__)
        return {"answer": answer, "scores": mean}
    if several:
        chosen = [name for name in names if votes[name] > 0.5 or (votes[name] == 0.5 and above[name] >= 0)]
        return {"answer": chosen, "scores": votes}
    return {"answer": max(names, key=lambda name: (votes[name], above[name])), "scores": votes}


def _says(answer: Answer, name: str) -> bool:
    said = answer["answer"]
    return name in said if isinstance(said, list) else name == said
