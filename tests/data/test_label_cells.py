"""Cells of the column `label`: one class, several, or a number; and the shares and samples that they are drawn for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.data.pipeline import load
from llmft.data.roles import assign
from llmft.data.source import Table
from llmft.data.splitting import strata
from llmft.data.stream import Sample
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from llmft.tasks.targets.config import TargetConfig
from llmft.tasks.targets.problems import from_facts

Write = Callable[[str, str | bytes], Path]


class Texts:
    """A task that reads its labels in some way."""

    def __init__(self, label: Column) -> None:
        self.columns = {"text": Column("text"), "label": label}

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
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


FLAGS = Column("labels", labels=("red", "round", "big"))


def test_flags_are_the_labels_that_are_set_where_the_labels_are_declared(write: Write) -> None:
    write(
        "a.jsonl", '{"text": "a", "label": [1, 0, 1]}\n{"text": "b", "label": [0, 0, 0]}\n{"text": "c", "label": []}\n'
    )
    assert read(FLAGS, format="json", train="a.jsonl") == [["red", "big"], [], []]
    write("a.csv", 'text,label\na,"[1, 0, 1]"\nb,"0,1,0"\nc,big\n')
    assert read(FLAGS, train="a.csv") == [["red", "big"], ["round"], ["big"]]
    numbers = Column("labels", labels=("0", "1", "2", "3"))
    write("b.jsonl", '{"text": "a", "label": [1, 0, 1, 1]}\n{"text": "b", "label": [0, 1]}\n')
    assert read(numbers, format="json", train="b.jsonl") == [["0", "2", "3"], ["0", "1"]]
    two = Column("labels", labels=("0", "1"))
    write("c.jsonl", '{"text": "a", "label": [1, 0]}\n{"text": "b", "label": [1]}\n')
    assert read(two, format="json", train="c.jsonl") == [["1", "0"], ["1"]]


def test_lists_that_are_written_as_text(write: Write) -> None:
    write("a.csv", """text,label\na,"['red', 'big']"\nb,"[""red""]"\nc,[sic]\nd,[]\n""")
    assert read(Column("labels"), train="a.csv") == [["red", "big"], ["red"], ["[sic]"], []]


def test_a_label_in_columns_of_flags(write: Write) -> None:
    write("a.csv", "text,red,round,x\na,1,0,9\nb,True,true,9\nc,0,FALSE,9\n")
    columns = {"label": ["red", "round"]}
    assert read(Column("labels"), train="a.csv", columns=columns) == [["red"], ["red", "round"], []]
    write("b.csv", "text,red,round\na,1,0\nb,0,1.0\n")
    assert read(Column("label"), train="b.csv", columns=columns) == ["red", "round"]
    table = Table({"red": ["1"], "round": ["0"], "x": ["9"]}, ["a"])
    roles = {"features": Column("features"), "label": Column("labels", missing=())}
    assert assign(table, DatasetConfig(columns=columns), roles, "train").columns == {
        "features": [{"x": "9"}],
        "label": [["red"]],
    }


def test_true_and_false_are_the_same_labels_in_every_file_and_spelling(write: Write) -> None:
    write("a.jsonl", '{"text": "a", "label": true}\n{"text": "b", "label": false}\n')
    write("a.csv", "text,label\na,True\nb,false\nc,TRUE\nd,False\ne,truth\n")
    assert read(Column("label"), format="json", train="a.jsonl") == ["true", "false"]
    assert read(Column("label"), train="a.csv") == ["true", "false", "true", "false", "truth"]
    write("b.csv", 'text,label\na,"True,x"\nb,true\n')
    assert read(Column("labels"), train="b.csv") == [["true", "x"], ["true"]]
    options = TargetConfig(labels=["True", "False"], class_weights={"True": 2, "False": 1})
    assert options.labels == ["true", "false"]
    assert options.class_weights == {"true": 2, "false": 1}
    for facts in ({"labels": ["False", "True"]}, {"target": {"problem": "single_label", "labels": ["False", "True"]}}):
        target = from_facts(facts)  # of an earlier version
        assert target.encode(["true", "false"]) == [1, 0]


def test_columns_of_flags_are_told_from_others(write: Write) -> None:
    write("a.csv", "text,lo,hi,n\na,1,0,5\nb,0,1,1\nc,0,1,0\n")
    with pytest.raises(
        UserError, match=r"If lo, hi are flags, one for each label, write dataset.columns.label=\[lo,hi\]\."
    ):
        read(Column("label"), train="a.csv")
    write("a.csv", "text,lo,hi,n\na,1,1,5\nb,0,1,1\nc,0,0,0\n")
    with pytest.raises(UserError, match=r"write dataset.columns.label=\[lo,hi\] task.problem=multi_label\."):
        read(Column("label"), train="a.csv")
    with pytest.raises(UserError, match=r"write dataset.columns.label=\[lo,hi\]\."):
        read(Column("labels"), train="a.csv")
    write("a.csv", "text,klass,flag\na,x,1\nb,y,0\n")
    with pytest.raises(UserError, match=r"Write dataset.columns.label=COLUMN\."):
        read(Column("label"), train="a.csv")


FLAG_FAULTS = {
    "two where one is wanted": ("a,1,1", "a.csv:2  2 of red, round are set, and one is the label. For any number of labels, write task.problem=multi_label"),
    "none": ("a,0,0", "a.csv:2  0 of red, round are set"),
    "no flag": ("a,2,0", "a.csv:2  red is not a flag, which is 1 or 0"),
    "a hole": ("a,1,NA", "a.csv:2  has no label"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAG_FAULTS)
def test_a_row_of_flags_that_says_no_label_is_named(name: str, write: Write) -> None:
    row, text = FLAG_FAULTS[name]
    write("a.csv", f"text,red,round\n{row}\n")
    with pytest.raises(UserError, match=text):
        read(Column("label"), train="a.csv", columns={"label": ["red", "round"]})


def test_numbers(write: Write) -> None:
    write("a.csv", "text,label\na,3.800\nb,-1e3\nc,7\n")
    assert read(Column("number"), train="a.csv") == [3.8, -1000.0, 7.0]
    write("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 1.5}\n')
    assert read(Column("number"), format="json", train="a.jsonl") == [1.0, 1.5]


FAULTS = {
    "no number": (Column("number"), "text,label\na,1\nb,many\n", "a.csv:3  label is 'many', not a number"),
    "flags of a text": (Column("labels"), 'text,label\na,"1,0,1"\n', "a.csv:2  label is '1,0,1', not a list of distinct classes. If these are flags"),
    "underscores": (Column("number"), "text,label\na,1\nb,1_01\n", "a.csv:3  label is '1_01', not a number"),
    "digits of another script": (Column("number"), "text,label\na,1\nb,١٢\n", "a.csv:3  label is '١٢', not a number"),
    "a mark": (Column("number"), "text,label\na,1\nb,#N/A\n", "has no label (train)"),
    "not finite": (Column("number"), "text,label\na,1\nb,inf\n", "a.csv:3  label is 'inf', not a number"),
    "missing number": (Column("number"), "text,label\na,1\nb,\n", "has no label (train)"),
}  # fmt: skip
JSON_FAULTS = {
    "missing list": (Column("labels"), '{"text": "a", "label": ["x"]}\n{"text": "b"}\n', "has no label (train)"),
    "list in a list": (Column("labels"), '{"text": "a", "label": [["x"]]}\n', "a.jsonl:1  label is [['x']], not a list of distinct classes"),
    "flags of fractions": (Column("labels"), '{"text": "a", "label": [1.0, 0.0, 1.0]}\n', "a.jsonl:1  label is [1.0, 0.0, 1.0], not a list of distinct classes. If these are flags"),
    "flags of true and false": (Column("labels"), '{"text": "a", "label": [true, true]}\n', "a.jsonl:1  label is [True, True], not a list of distinct classes. If these are flags"),
    "flags": (Column("labels"), '{"text": "a", "label": [1, 0, 1]}\n', "a.jsonl:1  label is [1, 0, 1], not a list of distinct classes. If these are flags, one for each label, name the labels in order: task.labels=[A,B,...]"),
    "a label twice": (Column("labels"), '{"text": "a", "label": ["x", "y", "x"]}\n', "a.jsonl:1  label is ['x', 'y', 'x'], not a list of distinct classes"),
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
