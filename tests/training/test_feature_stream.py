"""Features of streamed rows: all of them once, new in each epoch, the same again, in batches that waste no padding."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.utils.data import DataLoader

from llmft.data.pipeline import load
from llmft.data.stream import Stream
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Failure
from llmft.training.batches import FeatureStream

Rows = Callable[[int], Stream]


class Lengths:
    """A task whose features are the number of a row, and as long as the row says."""

    columns: ClassVar = {"text": Column("text"), "label": Column("label")}
    config = DatasetConfig
    fixed = ()
    copies = 1

    def encode(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        numbers = [int(text) for text in rows["text"]] * self.copies
        return {"number": numbers, "row": [0] * len(numbers), "length": [1 + n * 7919 % 97 for n in numbers]}


@pytest.fixture
def rows(here: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    """A stream of so many rows, in chunks of 5 and two files."""
    monkeypatch.setattr("llmft.data.csv_files.CHUNK", 5)
    monkeypatch.setattr("llmft.training.batches.WINDOW", 40)
    known: dict[int, Stream] = {}

    def make(count: int) -> Stream:
        if count not in known:
            for name, numbers in (("a", range(count // 3)), ("b", range(count // 3, count))):
                text = "text,label\n" + "".join(f"{i},x\n" for i in numbers)
                (here / f"{count}-{name}.csv").write_text(text)
            keys = {"train": f"{count}-*.csv", "streaming": True, "split": {"validation": 0, "test": 0}}
            stream = load(DatasetConfig.model_validate(keys), Lengths()).stream
            assert stream is not None
            known[count] = stream
        return known[count]

    return make


def stream_of(rows: Stream, seed: int = 0, size: int = 4, accumulation: int = 1, grouped: bool = True) -> FeatureStream:
    task: Any = Lengths()
    return FeatureStream(task, rows, seed, size, accumulation, grouped)


def batches(features: FeatureStream, size: int, workers: int = 0, epoch: int = 0) -> list[list[int]]:
    features.set_epoch(epoch)
    loader = DataLoader(features, batch_size=size, num_workers=workers, collate_fn=lambda f: [x["number"] for x in f])
    found = list(loader)
    assert len(found) == len(loader)
    return found


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("count", [1, 4, 61, 150])
def test_every_row_comes_once(count: int, grouped: bool, rows: Rows) -> None:
    for size, accumulation, epoch in itertools.product((1, 4, 7, 100), (1, 3), (0, 2)):
        features = stream_of(rows(count), 3, size, accumulation, grouped)
        found = batches(features, size, epoch=epoch)
        assert sorted(number for batch in found for number in batch) == list(range(count))
        assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
        assert found == batches(features, size, epoch=epoch)


@pytest.mark.parametrize(("count", "workers"), [(150, 2), (150, 3), (61, 2), (9, 2)])
def test_workers_share_the_rows_and_make_as_many_batches(count: int, workers: int, rows: Rows) -> None:
    features = stream_of(rows(count))
    found = batches(features, 4, workers)
    assert sorted(number for batch in found for number in batch) == list(range(count))
    assert [len(batch) for batch in found] == [len(batch) for batch in batches(features, 4)]
    assert found == batches(features, 4, workers) != batches(features, 4, workers, epoch=1)


def test_epochs_and_seeds_differ(rows: Rows) -> None:
    orders = {str(batches(stream_of(rows(150), seed), 4, epoch=epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_rows_of_a_batch_come_from_all_over_the_files(rows: Rows) -> None:
    """A file that is sorted by label must not make batches of one label."""
    found = batches(stream_of(rows(150), grouped=False), 10)
    assert all(min(batch) < 75 < max(batch) for batch in found)


def test_grouping_spares_padding(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmft.training.batches.WINDOW", 400)
    lengths = [1 + n * 7919 % 97 for n in range(1600)]

    def padded(grouped: bool) -> float:
        found = batches(stream_of(rows(1600), size=8, grouped=grouped), 8)
        return sum(max(lengths[n] for n in batch) * len(batch) for batch in found) / sum(lengths)

    assert padded(True) < 1.1
    assert padded(False) > 1.6


def test_several_features_of_a_row_are_refused(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lengths, "copies", 2)
    with pytest.raises(Failure, match="several features of a row"):
        list(stream_of(rows(4)))


def test_the_random_state_of_training_is_left_alone(rows: Rows) -> None:
    """Dropout draws from it: reading ahead must not move it."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(stream_of(rows(61)))
    assert torch.equal(torch.get_rng_state(), before)
