"""The comparison itself: its numbers by hand, and what it calls wrong."""

import copy
import math
from typing import Any

import pytest

from llmft.exports.parity import check, lost, settled
from llmft.schema.problem import Failure
from llmft.tasks.task import Codec

DIFFERENCES = {
    "equal": ([[1.0, -4.0]], [[1.0, -4.0]], 0.0),
    "a quarter of the largest, which is negative": ([[1.0, -4.0]], [[2.0, -4.0]], 0.25),
    "one row of several": ([[1.0], [2.0]], [[1.0], [1.5]], 0.25),
    "nothing but zeros": ([[0.0]], [[0.0]], 0.0),
    "rows of several lengths": ([[[1.0, 2.0]], [[5.0]]], [[[1.0, 2.0]], [[4.0]]], 0.2),
    "a row without tokens": ([[], [2.0]], [[], [1.0]], 0.5),
}


def difference(original: list[Any], exported: list[Any]) -> float:
    """That of most tasks, which needs nothing of them."""
    return Codec.output_difference(None, original, exported)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_a_share_of_the_largest_output(name: str) -> None:
    original, exported, share = DIFFERENCES[name]
    assert difference(original, exported) == pytest.approx(share)


def test_what_is_no_number_is_no_small_difference() -> None:
    assert math.isnan(difference([[1.0]], [[math.nan]]))


SETTLED = {
    "a label": ("good", "good"),
    "labels": (["a", "b"], ["a", "b"]),
    "no label": ([], []),
    "a number": (1.5, None),
    "shares": ({"road": 0.5, "sky": 0.5}, {}),
    "spans": ([{"text": "Ada", "start": 0, "score": 0.9}], [{"text": "Ada", "start": 0}]),
    "boxes": ([{"label": "cat", "box": [0.5, 1.0], "score": 0.9}], [{"label": "cat"}]),
}


@pytest.mark.parametrize("name", SETTLED)
def test_what_two_runtimes_say_alike_are_no_floats(name: str) -> None:
    answer, left = SETTLED[name]
    assert settled(answer) == left


@pytest.mark.parametrize(
    ("metric", "original", "exported", "loss"),
    [("accuracy", 0.9, 0.88, 0.02), ("accuracy", 0.9, 0.95, -0.05), ("loss", 0.5, 0.6, 0.2), ("loss", 0.5, 0.4, -0.2)],
)
def test_a_loss_is_in_points_or_for_errors_a_share(metric: str, original: float, exported: float, loss: float) -> None:
    assert lost(metric, original, exported) == pytest.approx(loss)


GOOD: dict[str, Any] = {
    "split": "test",
    "rows": 300,
    "difference": 1e-6,
    "limit": 1e-4,
    "shapes": [
        {"inputs": {"input_ids": [2, 17]}, "difference": 1e-6},
        {"inputs": {"numbers": [3, 2]}, "difference": 0.0},
    ],
    "padding": 1e-6,
    "metric": {"name": "accuracy", "original": 0.9, "exported": 0.9, "loss": 0.0},
    "max_loss": 0.01,
}

WRONG: dict[str, tuple[list[Any], Any, str]] = {
    "over the rows": (["difference"], 2e-4, "2.0e-04 over 300 rows of test"),
    "in one shape": (["shapes", 0, "difference"], 1.0, "1.0e+00 for 2 x 17"),
    "by padding": (["padding"], 0.1, "1.0e-01 for a row with padding"),
    "no number": (["difference"], math.nan, "nan over 300 rows"),
    "in what counts": (["metric"], {"name": "accuracy", "original": 0.9, "exported": 0.88, "loss": 0.02}, "accuracy is 0.8800 instead of 0.9000 on test"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_number_beyond_its_limit_is_named(name: str) -> None:
    path, value, words = WRONG[name]
    parity = copy.deepcopy(GOOD)
    place: Any = parity
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(Failure, match="and was removed") as failure:
        check(parity)
    assert words in str(failure.value)


def test_what_has_no_padding_and_no_metric_can_still_be_good() -> None:
    check(GOOD)
    check(GOOD | {"padding": None, "metric": {"name": "roc_auc", "original": None, "exported": None}})
