"""Several answers as one, worked out by hand, for each form that an answer has."""

from typing import Any

import pytest

from llmft.commands.eval import combine
from llmft.schema.problem import UserError
from llmft.tasks.targets.single_label import SingleLabel


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
    cuts = dict.fromkeys("xy", 0.5) if row is SEVERAL else {}
    (found,) = combine([[answer] for answer in row], how, weights, [cuts] * len(row))  # type: ignore[arg-type]
    assert found["answer"] == expected["answer"]
    assert found.get("scores", {}) == pytest.approx(expected.get("scores", {}))


def test_rows_keep_their_order_and_numbers_take_no_vote() -> None:
    models = [[{"answer": 1.0}, {"answer": 2.0}], [{"answer": 3.0}, {"answer": 6.0}]]
    assert [answer["answer"] for answer in combine(models, "mean", [1, 1], [{}, {}])] == [2.0, 4.0]
    with pytest.raises(UserError, match="must be mean for a task that predicts numbers, got vote"):
        combine(models, "vote", [1, 1], [{}, {}])


def test_the_mean_is_held_against_the_mean_of_the_thresholds() -> None:
    # x has 0.4667 and y 0.4833; the thresholds are 0.46 and 0.5, by weights of 1 and 0 those of the first.
    thresholds = [{"x": 0.58, "y": 0.4}, {"x": 0.4, "y": 0.6}, {"x": 0.4, "y": 0.5}]
    (found,) = combine([[answer] for answer in SEVERAL], "mean", [1, 1, 1], thresholds)
    assert found["answer"] == ["x"]
    (found,) = combine([[answer] for answer in SEVERAL], "mean", [1, 0, 0], thresholds)
    assert found["answer"] == ["x", "y"]

    # Of two labels, b is given from a mean of 0.35 on, and a above 0.65.
    two = [SingleLabel(["a", "b"], threshold=cut) for cut in (0.2, None)]
    pair = [[label("b", a=0.7, b=0.3)], [label("b", a=0.55, b=0.45)]]
    (found,) = combine(pair, "mean", [1, 1], [target.label_thresholds() for target in two])
    assert (found["answer"], found["scores"]["b"]) == ("b", pytest.approx(0.375))
