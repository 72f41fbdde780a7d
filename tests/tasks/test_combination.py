"""Several answers as one, worked out by hand, for each form that an answer has."""

from typing import Any

import pytest

from llmft.schema.problem import UserError
from llmft.tasks.combination import combine


def label(answer: str, **scores: float) -> dict[str, Any]:
    return {"answer": answer, "scores": scores}


def labels(*answer: str, **scores: float) -> dict[str, Any]:
    return {"answer": list(answer), "scores": scores}


# Two are for b by a little, one is for a by far.
THREE = [label("a", a=0.9, b=0.1), label("b", a=0.45, b=0.55), label("b", a=0.45, b=0.55)]
SEVERAL = [labels("x", x=0.9, y=0.4), labels(x=0.3, y=0.45), labels("y", x=0.2, y=0.6)]

CASES: dict[str, tuple[list[dict[str, Any]], str, list[float], dict[str, Any]]] = {
    "the mean of one label": (THREE, "mean", [1, 1, 1], label("a", a=0.6, b=0.4)),
    "the vote of one label": (THREE, "vote", [1, 1, 1], label("b", a=1 / 3, b=2 / 3)),
    "weights move the mean": (THREE, "mean", [1, 6, 6], label("b", a=6.3 / 13, b=6.7 / 13)),
    "weights move the vote": (THREE, "vote", [5, 1, 1], label("a", a=5 / 7, b=2 / 7)),
    "a run of weight 0 does not count": (THREE, "mean", [2, 0, 0], label("a", a=0.9, b=0.1)),
    "a tied vote goes by the mean": (THREE[:2], "vote", [1, 1], label("a", a=0.5, b=0.5)),
    "labels in another order": ([label("a", a=0.8, b=0.2), label("b", b=0.6, a=0.4)], "mean", [1, 1], label("a", a=0.6, b=0.4)),
    "the mean of several labels": (SEVERAL, "mean", [1, 1, 1], labels(x=1.4 / 3, y=1.45 / 3)),
    "the mean of several labels, weighed": (SEVERAL, "mean", [2, 0, 1], labels("x", x=2 / 3, y=1.4 / 3)),
    "the vote of several labels": (SEVERAL, "vote", [1, 1, 1], labels(x=1 / 3, y=1 / 3)),
    "the vote of several labels, weighed": (SEVERAL, "vote", [1, 1, 3], labels("y", x=0.2, y=0.6)),
    "numbers": ([{"answer": 1.0}, {"answer": 4.0}], "mean", [1, 2], {"answer": 3.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_answers_become_one(name: str) -> None:
    row, how, weights, expected = CASES[name]
    (found,) = combine([[answer] for answer in row], how, weights)  # type: ignore[arg-type]
    assert found["answer"] == expected["answer"]
    assert found.get("scores", {}) == pytest.approx(expected.get("scores", {}))


def test_rows_keep_their_order_and_numbers_take_no_vote() -> None:
    models = [[{"answer": 1.0}, {"answer": 2.0}], [{"answer": 3.0}, {"answer": 6.0}]]
    assert [answer["answer"] for answer in combine(models, "mean", [1, 1])] == [2.0, 4.0]
    with pytest.raises(UserError, match="numbers can't be voted on"):
        combine(models, "vote", [1, 1])
