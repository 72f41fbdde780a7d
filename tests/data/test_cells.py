"""One form for cells that mean the same, whatever file they come from."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from llmft.data.cell_values import category, is_missing, number, to_one_type
from llmft.data.checks import input_keys
from llmft.data.roles import assign
from llmft.data.source import Table
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError

ALIKE = {
    "true": [True, "true", "TRUE", "True", " true "],
    "false": [False, "false", "FALSE", "False"],
    "3": [3, 3.0, "3", "3.0", "3.000", " 3 ", Decimal("3.00")],
    "-3": [-3, -3.0, "-3.0"],
    "3.5": [3.5, "3.5", Decimal("3.5")],
    "Ulm": ["Ulm", " Ulm", "Ulm ", "\tUlm", "\u00a0Ulm"],
    "Köln": ["Köln", "Ko\u0308ln"],
    "2024-05-03": [date(2024, 5, 3), "2024-05-03"],
    "2024-05-03T10:00:00+00:00": [datetime(2024, 5, 3, 10, tzinfo=UTC)],
    "90": [timedelta(seconds=90), 90, "90.0"],
    '{"a": 1, "b": 2}': [{"b": 2, "a": 1}, {"a": 1, "b": 2}],
    "12345678901234567890": [12345678901234567890, "12345678901234567890"],
}


@pytest.mark.parametrize("name", ALIKE)
def test_cells_that_mean_the_same_are_one_category(name: str) -> None:
    assert {category(cell) for cell in ALIKE[name]} == {name}


@pytest.mark.parametrize(
    ("one", "other"), [("3.10", "3.1"), ("007", "7"), ("007.0", "7"), ("yes", "true"), ("1", "true")]
)
def test_cells_that_may_differ_stay_apart(one: str, other: str) -> None:
    assert category(one) != category(other)


MARKS = [
    "",
    " ",
    "NA",
    "n/a",
    "N/A",
    "nan",
    "-nan",
    "NaN",
    "NULL",
    "null",
    "None",
    "<NA>",
    "#N/A",
    "#N/A N/A",
    "?",
    "NaT",
]
MARKS += ["#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "\\N", "1.#QNAN", "-1.#IND"]


@pytest.mark.parametrize("mark", [None, float("nan"), *MARKS])
def test_the_usual_marks_are_missing(mark: Any) -> None:
    assert is_missing(mark)


@pytest.mark.parametrize("cell", ["-", "—", "0", 0, False, "no", "Nana", "na na"])
def test_what_may_be_a_value_is_none_unless_it_is_named(cell: Any) -> None:
    assert not is_missing(cell)
    assert is_missing(cell, {category(cell)})


@pytest.mark.parametrize(("cell", "value"), [("12", 12), (" -1.5 ", -1.5), ("1e3", 1000), (".5", 0.5), ("5.", 5), ("−3", -3), ("007", 7), (2, 2), (2.5, 2.5)])  # fmt: skip
def test_numbers(cell: Any, value: float) -> None:
    assert number(cell) == value


@pytest.mark.parametrize("cell", ["1_01", "١٢", "１２", "0x1F", "1e999", "inf", "-Infinity", "nan", "1,5", "1 000", "", "five", None, True, [1], 10**400])  # fmt: skip
def test_what_is_no_number(cell: Any) -> None:
    assert number(cell) != number(cell)


def test_a_column_has_one_type() -> None:
    assert to_one_type([1, None, 2], {int: 2}) == [1, None, 2]
    assert to_one_type([1, "", 2.5], {int: 1, float: 1}) == [1.0, None, 2.5]
    assert to_one_type([True, 0, None], {bool: 1, int: 1}) == ["true", "0", None]
    assert to_one_type([2**63, 1], {int: 2}) == [str(2**63), "1"]
    assert to_one_type([0.5, 2**63], {int: 1, float: 1}) == [0.5, 2.0**63]
    assert to_one_type([1, 2], None) == ["1", "2"]


def features(columns: dict[str, list[Any]], **columns_of: Any) -> list[dict[str, Any]]:
    table = Table(columns, [f"a.jsonl:{row + 1}" for row in range(len(next(iter(columns.values()))))])
    roles = {"features": Column("features"), "label": Column("label", missing=())}
    config = DatasetConfig(columns=columns_of)
    return list(assign(table, config, roles, "train").columns["features"])


def test_an_object_is_a_column_for_each_part_whatever_the_order_of_its_keys() -> None:
    who = [{"zip": "02134", "active": True, "home": {"floor": 1}}, {"home": None, "active": False, "zip": "1"}, None]
    found = features({"who": who, "label": ["a", "b", "a"]})
    assert found == [
        {"who.active": "true", "who.home.floor": 1, "who.zip": "02134"},
        {"who.active": "false", "who.home.floor": None, "who.zip": "1"},
        {"who.active": None, "who.home.floor": None, "who.zip": None},
    ]
    assert list(features({"who": who, "label": ["a"] * 3}, features=["who"])[0]) == list(found[0])
    assert list(features({"who": who, "label": ["a"] * 3}, features=["who.zip"])[0]) == ["who.zip"]


TORN = {
    "an object beside a text": ({"who": [{"a": 1}, "x"]}, "a.jsonl:2  who is 'x', and an object in other rows"),
    "a list beside a number": (
        {"who": [1, [2]]},
        r"a.jsonl:2  who is \[2\], which does not fit the other rows",
    ),
    "two columns of a name": ({"who": [{"a": 1}, None], "who.a": [1, 2]}, "two columns are called 'who.a'"),
}


@pytest.mark.parametrize("name", TORN)
def test_what_does_not_go_together_is_named(name: str) -> None:
    columns, text = TORN[name]
    with pytest.raises(UserError, match=text):
        features({**columns, "label": ["a", "b"]})


def test_marks_in_the_label_of_a_table_are_none_unless_they_are_declared() -> None:
    def labels(spec: Column) -> list[Any]:
        cells = ["p", "NA", "?", "n", "#N/A", ""]
        table = Table({"label": cells, "x": cells}, list("123456"))
        return assign(table, DatasetConfig(), {"x": Column("features"), "label": spec}, "train").columns["label"]

    assert labels(Column("label", missing=())) == ["p", None, None, "n", None, None]
    assert labels(Column("label", missing=("n",))) == ["p", None, None, None, None, None]
    assert labels(Column("label", missing=(), labels=("p", "NA"))) == ["p", "NA", None, "n", None, None]
    assert labels(Column("label")) == ["p", "NA", "?", "n", "#N/A", None]


def test_the_same_row_of_two_files_is_a_repeat() -> None:
    rows = [{"n": "3.0", "b": "TRUE", "t": " Ulm"}, {"t": "ulm", "b": True, "n": 3}]
    assert len(set(input_keys(Table({"features": rows}, ["a", "b"]), {"features": Column("features")}))) == 1
