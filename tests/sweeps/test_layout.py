"""The folders of a sweep: readable, safe, each job its own."""

import re
from pathlib import Path
from typing import Any

import pytest

from llmft.config.load import load
from llmft.schema.job import Job, as_overrides
from llmft.sweeps.layout import Sweep, folder_name, short_keys

NAMES = {
    "lr=1e-05 seed=0": "lr-1e-05_seed-0",
    "lr=-3": "lr--3",
    "train=data/评论 (1).csv": "train-data-评论_1-.csv",
    "train=../../etc": "train-..-..-etc",
    "train=[a.csv,b.csv]": "train-a.csv-b.csv",
    "columns={text:内容,label:类别}": "columns-text-内容-label-类别",
    "name=$(rm -rf ~)": "name-rm_rf",
    "name=a\nb": "name-a-b",
    "path=x;y&z|'\"`*?": "path-x-y-z",
}


@pytest.mark.parametrize("label", NAMES)
def test_a_folder_is_named_after_the_values(label: str) -> None:
    assert folder_name(label) == NAMES[label]


def test_long_names_are_cut_and_stay_apart() -> None:
    one, two = (folder_name(f"train={'评论' * 80}{end}") for end in "ab")
    assert one != two
    for name in (one, two):
        assert len(name.encode()) <= 100
        assert re.fullmatch(r"train-[评论]+-[0-9a-f]{6}", name)


def test_keys_are_told_by_their_last_name_unless_two_share_it() -> None:
    keys = ["optimizer.lr", "seed", "dataset.split.seed", "recipe"]
    assert list(short_keys(keys).values()) == ["lr", "seed", "dataset.split.seed", "recipe"]
    assert short_keys(["a.x", "b.x"]) == {"a.x": "a.x", "b.x": "b.x"}


def job(*words: str, **values: Any) -> Job:
    return Job(values, load("finetune", ["+recipe=bert_textcls", *words, *as_overrides(values).split()]))


def test_the_same_jobs_find_the_same_folder_in_any_order() -> None:
    jobs = [job(seed=seed) for seed in range(3)]
    folder = Sweep.of(jobs).folder
    assert re.fullmatch(r"outputs/bert_textcls/sweep-[0-9a-f]{8}", str(folder))
    assert Sweep.of(jobs[::-1]).folder == folder
    assert Sweep.of([job("sweep.jobs=2", seed=seed) for seed in range(3)]).folder == folder
    assert Sweep.of(jobs[:2]).folder != folder
    assert Sweep.of([job("run.dir=x", seed=0)]).folder == Path("x")
    assert Sweep.of([job(name="a"), job(name="b")]).folder.parent == Path("outputs/sweep")


def test_jobs_whose_names_are_alike_have_folders_of_their_own() -> None:
    words = ("dataset=csv",)
    config = load("finetune", [*words, "dataset.train=a.csv"])
    sweep = Sweep.of([Job({"dataset.train": value}, config) for value in ("a/b.csv", "a-b.csv", "a*b.csv")])
    names = [entry.folder.name for entry in sweep.entries]
    assert names[0] == "train-a-b.csv"
    assert all(re.fullmatch(r"train-a-b\.csv-[0-9a-f]{6}", name) for name in names[1:])
    assert len(set(names)) == 3
