"""Tables on a terminal."""

import pytest

from llmft.reporting.lines import aligned, duration


def test_columns_are_under_each_other_in_any_script() -> None:
    assert aligned([["train", "f1", "time"], ["评论.csv", "0.5", ""], ["a.csv", "0.25", "3 s"]]) == [
        "train     f1    time",
        "评论.csv  0.5",
        "a.csv     0.25  3 s",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
