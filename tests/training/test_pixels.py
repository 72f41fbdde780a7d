"""Pixels in files beside the other features: read by index, kept in the cache, bounded, and small in memory."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from llmft import tasks
from llmft.commands.prepare import prepare
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.training.features import FeatureSet, encode


@pytest.fixture
def features() -> FeatureSet:
    config = compose("finetune", ["+recipe=cifar_resnet", "smoke=true", "dataset.max_rows=70"])
    task = tasks.build(config.task)
    rows = load(config.dataset, task)["train"]
    return encode(task.fit(rows, config.model), rows)


def test_pixels_are_read_by_index(features: FeatureSet, tmp_path: Path) -> None:
    assert "pixels" not in features.table.column_names
    one, other = features.__getitems__([69, 0])
    assert len(one["pixels"]) == 32 * 32 * 3
    assert (one["pixels"], other["labels"]) == (features[69]["pixels"], features[0]["labels"])
    features.save(tmp_path / "train.features.arrow")
    again = FeatureSet.load(tmp_path / "train.features.arrow")
    assert again.__getitems__([69, 0]) == [one, other]
    assert pickle.loads(pickle.dumps(again))[69] == one  # a worker process that is not forked
    again.hold()
    (tmp_path / "train.features.pixels").unlink()
    assert again[69] == one


def test_a_temporary_file_goes_with_its_features(features: FeatureSet) -> None:
    place = features.pixels["pixels"].file
    assert place.exists()
    features.pixels.clear()
    assert not place.exists()


def folder_of(place: Path, count: int) -> Path:
    for number in range(count):
        file = place / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numpy.full((9, 9, 3), (number % 250, number // 250, 0), numpy.uint8)).save(file)
    return place


def prepared(place: Path, *words: str) -> Any:
    return prepare(compose("finetune", ["+recipe=cifar_resnet", "dataset=images", f"dataset.train={place}", *words]))


def test_the_cache_knows_pixels_by_content(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMFT_CACHE", str(here / "cache"))
    place = folder_of(here / "data", 20)
    assert "seen for the first time" in prepared(place).origin
    first = prepared(place)
    assert first.origin == "from the cache"
    Image.new("RGB", (9, 9), "red").save(place / "a/0.png")
    second = prepared(place)
    assert second.origin.startswith("now, and kept for later runs (changed: data")
    assert "task.size" in prepared(place, "task.size=40").origin
    assert first.splits["train"].features.__getitems__([0]) is not None


def test_pixels_stay_readable_when_their_entry_goes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process makes room before the first pixel of a split is read, such as one that is scored at the end."""
    monkeypatch.setenv("LLMFT_CACHE", str(here / "cache"))
    place = folder_of(here / "data", 20)
    before = prepared(place).splits["test"].features[0]
    found = prepared(place)
    assert found.origin == "from the cache"
    shutil.rmtree(found.entry.folder)
    assert found.splits["test"].features[0] == before


def test_what_would_fill_the_cache_is_used_and_not_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMFT_CACHE", str(here / "cache"))
    monkeypatch.setenv("LLMFT_CACHE_GB", "0.0001")
    place = folder_of(here / "data", 20)
    found = prepared(place)
    assert "not kept: 0.0 GB are more than 50% of the cache, see LLMFT_CACHE_GB" in found.origin
    assert len(found.splits["train"].features[3]["pixels"]) == 32 * 32 * 3
    assert [path for path in (here / "cache").rglob("*") if path.is_file()] == []


MEASURE = """
import resource, sys
from llmft.commands.prepare import prepare
from llmft.config.load import load
for place in sys.argv[1:]:
    found = prepare(load("finetune", ["+recipe=cifar_resnet", "dataset=images", f"dataset.train={place}", "task.size=160"]))
    features = found.splits["train"].features
    for first in range(0, len(features), 32):
        found.task.objective.collate(features.__getitems__(list(range(first, min(first + 32, len(features))))))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(features))
"""


@pytest.mark.slow  # 20 s
@pytest.mark.skipif(sys.platform == "win32", reason="has no ru_maxrss")
def test_memory_does_not_grow_with_the_images(here: Path) -> None:
    """Ten times the images, which are 140 MB of pixels, and at most a tenth more memory."""
    places = [str(folder_of(here / str(count), count)) for count in (190, 1900)]
    environment = os.environ | {"LLMFT_CACHE": str(here / "cache")}
    done = subprocess.run([sys.executable, "-c", MEASURE, *places], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    small, few, large, many = map(int, done.stdout.split())
    assert many > 9 * few
    assert large <= 1.1 * small
