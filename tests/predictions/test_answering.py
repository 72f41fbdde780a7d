"""Windows of rows: all of them, in their order, and none waits for another."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.predictions.answering import available_windows, windows


@given(st.lists(st.integers()), st.integers(1, 7))
@settings(deadline=None, max_examples=30)
def test_all_rows_come_in_their_order(rows: list[int], size: int) -> None:
    for way in (windows, available_windows):
        found = list(way(iter(rows), size))
        assert [row for window in found for row in window] == rows
        assert all(0 < len(window) <= size for window in found)


def test_a_row_does_not_wait_for_the_next() -> None:
    taken = threading.Event()

    def rows() -> Iterator[int]:
        yield 1
        assert taken.wait(30), "the first window came before the second row"
        yield 2

    found = available_windows(rows())
    assert next(found) == [1]
    taken.set()
    assert list(found) == [[2]]


def test_what_is_wrong_with_the_input_comes_after_its_rows() -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise ValueError("torn")

    found = available_windows(rows())
    assert next(found) == [1]
    with pytest.raises(ValueError, match="torn"):
        next(found)


def test_few_rows_are_read_ahead() -> None:
    read: list[int] = []

    def rows() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    found = available_windows(rows(), size=10)
    next(found)
    assert len(read) <= 21
    assert sum(map(len, found)) + 1 >= 990
