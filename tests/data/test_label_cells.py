"""Cells of the column `label`: one class, several, or a number; and the shares and samples that they are drawn for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.data.load import load
from llmft.data.sample import Sample
from llmft.data.strata import strata
from llmft.data.table import Table
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError

Write = Callable[[str, str | bytes], Path]


class Texts:
    """A task that reads its labels in some way."""

    def __init__(self, label: Column) -> None:
        self.columns = {"text": Column("text"), "label": label}

    def synthetic(self, rows: int, seed: int) -> dict[str, list[Any]]:
        raise NotImplementedError


def read(label: Column, **keys: Any) -> list[Any]:
    keys = {"split": {"validation": 0, "test": 0}} | keys
    return load(DatasetConfig(**keys), Texts(label))["train"]["label"][:]


def test_several_classes_of_a_csv(write: Write) -> None:
    write("a.csv", 'text,label\na,"red, round"\nb,\nc,red\nd,"red,,red"\ne,  \n')
    assert read(Column("labels"), train="a.csv") == [["red", "round"], [], ["red"], ["red"], []]
    write("b.csv", "text,label\na,red; not round\nb,1\n")
    assert read(Column("labels", separator=";"), train="b.csv") == [["red", "not round"], ["1"]]


def test_several_classes_of_json(write: Write) -> None:
    write("a.jsonl", '{"text": "a", "label": ["x", 1]}\n{"text": "b", "label": []}\n')
    assert read(Column("labels"), format="json", train="a.jsonl") == [["x", "1"], []]


def test_numbers(write: Write) -> None:
    write("a.csv", "text,label\na,3.800\nb,-1e3\nc,7\n")
    assert read(Column("number"), train="a.csv") == [3.8, -1000.0, 7.0]
    write("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 1.5}\n')
    assert read(Column("number"), format="json", train="a.jsonl") == [1.0, 1.5]


FAULTS = {
    "no number": (Column("number"), "text,label\na,1\nb,many\n", "a.csv:3  label is 'many', not a number"),
    "not finite": (Column("number"), "text,label\na,1\nb,inf\n", "a.csv:3  label is 'inf', not a number"),
    "missing number": (Column("number"), "text,label\na,1\nb,\n", "a.csv:3  has no label"),
}
JSON_FAULTS = {
    "missing list": (Column("labels"), '{"text": "a", "label": ["x"]}\n{"text": "b"}\n', "a.jsonl:2  has no label"),
    "list in a list": (Column("labels"), '{"text": "a", "label": [["x"]]}\n', "a.jsonl:1  label is [['x']], not a list of classes"),
    "list and text": (Column("labels"), '{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["x"]}\n{"text": "c", "label": "x"}\n', "a.jsonl:3  label is 'x', unlike the others: 2 of type list and 1 of type str"),
    "true": (Column("number"), '{"text": "a", "label": true}\n', "a.jsonl:1  label is True, not a number"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*FAULTS, *JSON_FAULTS])
def test_a_cell_that_is_none_of_it_is_named(name: str, write: Write) -> None:
    label, text, what = FAULTS.get(name) or JSON_FAULTS[name]
    file = "a.csv" if name in FAULTS else "a.jsonl"
    write(file, text)
    with pytest.raises(UserError) as error:
        read(label, train=file, format="csv" if name in FAULTS else "json")
    assert what in str(error.value)


def test_strata() -> None:
    assert strata(["a", "b", "a"]) == ["a", "b", "a"]
    assert strata([["a", "b"], ["a"], [], ["c", "b", "a"]]) == ["b", "a", "", "c"]
    assert strata([1.5, 2.0]) is None
    assert strata(None) is None


def test_shares_keep_rare_labels_and_numbers_are_shared_out(write: Write) -> None:
    rows = "".join(f't{i},"{"rare," if i % 10 == 0 else ""}often"\n' for i in range(200))
    write("a.csv", "text,label\n" + rows)
    data = load(DatasetConfig(train="a.csv", max_rows=100), Texts(Column("labels")))
    assert [sum("rare" in cell for cell in data[name]["label"]) for name in data.splits] == [10, 2, 2]
    write("b.csv", "text,label\n" + "".join(f"t{i},{i / 7}\n" for i in range(200)))
    data = load(DatasetConfig(train="b.csv"), Texts(Column("number")))
    assert [len(rows) for rows in data.splits.values()] == [160, 20, 20]


@pytest.mark.parametrize(("labels", "rows"), [
    ([["a"]] * 50 + [["a", "b"], []] + [["c"]] * 50, {"b", "c"}),
    ([float(number) for number in range(102)], None),
])  # fmt: skip
def test_a_sample_holds_every_label_and_no_more_numbers_than_asked(labels: list[Any], rows: set[str] | None) -> None:
    sample = Sample(5, seed=0)
    sample.add(Table({"label": labels}, [str(number) for number in range(len(labels))]))
    found = sample.table()
    if rows is None:
        assert len(found) == 5
    else:
        assert rows <= {name for cell in found.columns["label"] for name in cell}
