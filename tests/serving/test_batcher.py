"""The queue in front of a model: groups by length, order, and what happens to rows that fail or that nobody wants."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llmft.serving.batcher import Admission, Batcher, Full


class Model:
    """Doubles what it gets, once the gate is open, and remembers the lengths of each group."""

    def __init__(self) -> None:
        self.gate, self.started, self.groups = threading.Event(), threading.Event(), list[list[int]]()

    def run(self, features: list[dict[str, Any]]) -> list[Any]:
        self.groups.append([feature["length"] for feature in features])
        self.started.set()
        assert self.gate.wait(10)
        if any(feature["length"] == 13 for feature in features):
            raise ValueError("thirteen")
        return [2 * feature["length"] for feature in features]


@pytest.fixture
def gated() -> Iterator[Callable[..., tuple[Model, Batcher]]]:
    """A model that is busy with a feature of length 99, so that all others wait until its gate is opened."""
    made = []

    def batcher(**more: Any) -> tuple[Model, Batcher]:
        model = Model()
        found = Batcher(model.run, 1, more.pop("batch_size", 32), more.pop("group", 8), **more)
        made.append((model, found))
        found.submit([{"length": 99}])
        assert model.started.wait(10)
        return model, found

    yield batcher
    for model, found in made:
        model.gate.set()
        found.close()


def features(*lengths: int) -> list[dict[str, Any]]:
    return [{"length": length} for length in lengths]


def test_what_waits_is_sorted_by_length_and_computed_in_groups(gated: Callable[..., tuple[Model, Batcher]]) -> None:
    model, batcher = gated(group=3)
    one, other = batcher.submit(features(5, 1, 9)), batcher.submit(features(2, 7))
    model.gate.set()
    assert one.done.result(10) == [10, 2, 18]  # in the order that they were asked in
    assert other.done.result(10) == [4, 14]
    assert model.groups == [[99], [9, 7, 5], [2, 1]]


def test_no_more_than_a_batch_is_sorted_together(gated: Callable[..., tuple[Model, Batcher]]) -> None:
    model, batcher = gated(batch_size=2, group=8)
    work = batcher.submit(features(1, 5, 9))
    model.gate.set()
    assert work.done.result(10) == [2, 10, 18]
    assert model.groups == [[99], [5, 1], [9]]


@pytest.mark.parametrize(
    "alike, groups",
    [
        (1.0, [[20, 20], [19], [18], [10]]),
        (0.9, [[20, 20, 19], [18], [10]]),
        (0.5, [[20, 20, 19], [18, 10]]),
        (0.0, [[20, 20, 19], [18, 10]]),
    ],
)
def test_a_group_ends_where_a_length_is_too_small(
    alike: float, groups: list[list[int]], gated: Callable[..., tuple[Model, Batcher]]
) -> None:
    model, batcher = gated(group=3, alike=alike)
    work = batcher.submit(features(20, 10, 19, 20, 18))
    model.gate.set()
    assert work.done.result(10) == [40, 20, 38, 40, 36]
    assert model.groups == [[99], *groups]


def test_features_without_a_length_are_alike(gated: Callable[..., tuple[Model, Batcher]]) -> None:
    model, batcher = gated(group=2, alike=0.9)
    work = batcher.submit(features(0, 0, 0))
    model.gate.set()
    assert work.done.result(10) == [0, 0, 0]
    assert model.groups == [[99], [0, 0], [0]]


def test_one_that_fails_fails_alone(gated: Callable[..., tuple[Model, Batcher]]) -> None:
    model, batcher = gated()
    good, bad = batcher.submit(features(3, 4)), batcher.submit(features(5, 13, 13))
    model.gate.set()
    assert good.done.result(10) == [6, 8]
    with pytest.raises(ValueError, match="thirteen"):
        bad.done.result(10)


def test_what_was_dropped_is_not_computed(gated: Callable[..., tuple[Model, Batcher]]) -> None:
    model, batcher = gated()
    gone, kept = batcher.submit(features(3, 4)), batcher.submit(features(5))
    gone.drop()
    model.gate.set()
    assert kept.done.result(10) == [10]
    assert model.groups == [[99], [5]]


def test_what_can_wait_comes_after_all_others(gated: Callable[..., tuple[Model, Batcher]]) -> None:
    model, batcher = gated(batch_size=2, group=2)
    explained = batcher.submit(features(1, 1, 1, 1), later=True)
    asked = batcher.submit(features(7))
    model.gate.set()
    assert explained.done.result(10) == [2, 2, 2, 2]
    assert asked.done.result(10) == [14]
    assert model.groups == [[99], [7], [1, 1], [1, 1]]


def test_no_features_at_all(gated: Callable[..., tuple[Model, Batcher]]) -> None:
    assert gated()[1].submit([], len).done.result(10) == 0


def test_an_error_of_finish_is_that_of_the_work(gated: Callable[..., tuple[Model, Batcher]]) -> None:
    model, batcher = gated()
    work = batcher.submit(features(1), lambda outputs: outputs[7])
    model.gate.set()
    with pytest.raises(IndexError):
        work.done.result(10)


def test_admission_counts_rows() -> None:
    admission = Admission(4)
    admission.admit(3)
    with pytest.raises(Full) as full:
        admission.admit(2)
    assert full.value.retry_after == 1
    admission.admit(1)
    admission.release(4, 60.0)
    admission.admit(9)  # more than the limit by itself, so alone
    with pytest.raises(Full) as full:
        admission.admit(1)
    assert full.value.retry_after == 6  # of late a request took 6 seconds
    assert admission.rows == 9
