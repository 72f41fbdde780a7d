"""Folds: each row is held out once, labels keep their shares, and what belongs together stays together."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import Data, load
from llmft.data.source import Table
from llmft.data.splitting import connected, hold_out_fold, rows_of_fold
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from llmft.tasks.tables.tabular import Tabular

Write = Callable[[str, str], Path]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("stratified", [False, True])
def test_each_row_is_held_out_once_with_its_unit(grouped: bool, stratified: bool) -> None:
    rng = random.Random(0)
    units = [str(rng.randrange(120)) for _ in range(300)]
    labels = ["rare" if rng.random() < 0.2 else "frequent" for _ in units]
    parts = [rows_of_fold(units, labels if stratified else None, 5, fold, 7, grouped) for fold in range(5)]
    assert sorted(row for part in parts for row in part) == list(range(300))
    fold_of = {row: fold for fold, part in enumerate(parts) for row in part}
    assert all(len({fold_of[row] for row in range(300) if units[row] == unit}) == 1 for unit in set(units))
    if grouped:  # of equal size by rows
        assert max(map(len, parts)) - min(map(len, parts)) <= 15
    again = [rows_of_fold(units, labels if stratified else None, 5, fold, 7, grouped) for fold in range(5)]
    assert again == parts != [rows_of_fold(units, labels, 5, fold, 8, grouped) for fold in range(5)]


def test_labels_keep_their_share_to_the_row() -> None:
    labels = ["a"] * 50 + ["b"] * 20 + ["c"] * 5
    for fold in range(5):
        held = rows_of_fold([str(row) for row in range(75)], labels, 5, fold, 0, grouped=False)
        assert Counter(labels[row] for row in held) == {"a": 10, "b": 4, "c": 1}


def test_groups_that_share_an_input_are_one() -> None:
    keys = ["x", "y", "y", "z", "w", "w", "v"]
    groups = ["1", "1", "2", "3", None, "4", None]
    names = connected(keys, groups)
    first, second, third, fourth = names[0], names[3], names[4], names[6]
    assert names == [first, first, first, second, third, third, fourth]
    assert len({first, second, third, fourth}) == 4
    assert connected(keys, None) == keys


@pytest.mark.parametrize(
    ("units", "labels", "grouped", "what"),
    [
        (["a", "b", "b"], None, False, "must be at most 2, the number of different inputs, got 3"),
        (["a", "b", "b"], None, True, "must be at most 2, the number of groups, got 3"),
        (
            ["a", "b", "c", "d"],
            ["x", "x", "y", "y"],
            False,
            "must be at most the rows of the most frequent label to stratify by labels, got 3. Write dataset.split.stratify=false.",
        ),
    ],
)
def test_folds_that_cannot_be_made(units: list[str], labels: list[str] | None, grouped: bool, what: str) -> None:
    with pytest.raises(UserError) as error:
        rows_of_fold(units, labels, 3, 0, 0, grouped)
    assert what in str(error.value)


def table(*words: str) -> tuple[Data, Tabular]:
    config = compose("finetune", ["+recipe=tabular_mlp", "dataset=csv", "dataset.train=people.csv", *words])
    task = tasks.build(config.task)
    assert isinstance(task, Tabular)
    return load(config.dataset, task), task


@pytest.fixture
def people(write: Write) -> None:
    """Four rows of each of 40 people, and 16 rows of nobody."""
    rng = random.Random(1)
    rows = [(rng.random(), f"p{i % 40}", "yes" if i % 3 else "no") for i in range(160)]
    rows += [(rng.random(), "", "yes") for _ in range(16)]
    write("people.csv", "size,person,label\n" + "".join(f"{size},{who},{label}\n" for size, who, label in rows))


def people_of(rows: Any) -> set[str]:
    return {name for name in rows["group"][:] if name}


def test_a_group_is_in_one_split_and_no_feature(people: None) -> None:
    seen: list[str] = []
    for fold in range(4):
        data, task = table("dataset.columns.group=person", "dataset.folds=4", f"dataset.fold={fold}")
        assert all(set(row) == {"size"} for row in data["train"]["features"][:])
        train, validation, test = (people_of(data[name]) for name in ("train", "validation", "test"))
        assert not train & validation | train & test | validation & test
        task = task.fit(data["train"], compose("finetune", ["+recipe=tabular_mlp"]).model)
        assert list(task.state.columns.numbers) == ["size"]
        # The share of validation is one of the rows that are left.
        assert len(data["validation"]) == pytest.approx(0.15 * (176 - len(data["test"])), abs=4)
        seen += data["test"]["id"][:]
    assert sorted(seen) == sorted(f"people.csv:{line}" for line in range(2, 178))


def test_a_group_stays_together_without_folds_too(people: None, write: Write) -> None:
    data, _ = table("dataset.columns.group=person")
    assert not people_of(data["train"]) & people_of(data["test"])
    write("new.csv", "size,label\n1,yes\n2,no\n")
    data, _ = table("dataset.columns.group=person", "dataset.test=new.csv")
    assert "group" not in data["test"].column_names
    with pytest.raises(UserError, match="train has no column 'persons'"):
        table("dataset.columns.group=persons")


def test_numbers_as_labels_are_not_stratified() -> None:
    """A regression has as many labels as rows."""
    texts = [str(number) for number in range(30)]
    rows = Table({"text": texts, "label": [number / 7 for number in range(30)]}, texts)
    found = hold_out_fold({"train": rows}, DatasetConfig(), {"text": Column("text")}, folds=3, fold=0, drawn=False)
    assert (len(found["train"]), len(found["test"])) == (20, 10)


def test_of_several_labels_the_rarest_keeps_its_share() -> None:
    texts = [str(number) for number in range(60)]
    labels = [["common", "rare"] if number < 12 else ["common"] if number % 3 else [] for number in range(60)]
    rows = Table({"text": texts, "label": labels}, texts)
    for fold in range(3):
        found = hold_out_fold(
            {"train": rows}, DatasetConfig(), {"text": Column("text")}, folds=3, fold=fold, drawn=False
        )
        assert Counter(name for cell in found["test"].columns["label"] for name in cell)["rare"] == 4
