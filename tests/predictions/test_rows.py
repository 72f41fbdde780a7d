"""Rows as they come: any text survives, each row has its place, and a bad one harms no other."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmft.predictions.rows import LONGEST, Row, open_stream

# What UTF-8 can hold; NUL is refused. A line ends at \n, with or without a \r before it, and at nothing else.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n")).filter(lambda s: s[-1:] != "\r")


def rows_of(data: bytes, kind: str | None, encoding: str = "utf-8", text: str | None = "text") -> list[Row]:
    return list(open_stream(io.BytesIO(data), "f", kind, encoding, text).rows)


@given(st.lists(st.tuples(TEXTS, TEXTS)), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]))
@settings(deadline=None)
def test_any_text_survives_csv(cells: list[tuple[str, str]], encoding: str) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("text", "b"), *cells])
    found = rows_of(stream.getvalue().encode(encoding), "csv", encoding)
    assert [tuple(row.values.values()) for row in found] == cells
    starts = [2 + sum(1 + a.count("\n") + b.count("\n") for a, b in cells[:i]) for i in range(len(cells))]
    assert [row.id for row in found] == [f"f:{start}" for start in starts]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda some: st.lists(some) | st.dictionaries(TEXTS, some),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(TEXTS, JSON, max_size=3), max_size=4), st.booleans())
@settings(deadline=None, max_examples=40)
def test_any_value_survives_json(values: list[dict[str, Any]], as_list: bool) -> None:
    text = json.dumps(values) if as_list else "".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in values)
    found = rows_of(text.encode(), "json")
    assert [row.values for row in found] == values
    assert [row.id for row in found] == [f"f:{number}" for number in range(1, len(values) + 1)]


@given(st.lists(LINES))
@settings(deadline=None)
def test_any_line_survives_txt(lines: list[str]) -> None:
    found = rows_of(b"\xef\xbb\xbf" + "".join(f"{line}\n" for line in lines).encode(), "txt")
    assert [row.values["text"] for row in found] == lines


@given(st.binary(), st.sampled_from(["json", "txt"]))
@settings(deadline=None)
def test_of_any_bytes_each_line_is_a_row(data: bytes, kind: str) -> None:
    """Good or bad: as many come out as went in."""
    data = b"x\n" + data  # no list
    text = data.decode(errors="replace")
    lines = text.removesuffix("\n").split("\n")
    wanted = [number for number, line in enumerate(lines, 1) if line.strip() or kind == "txt"]
    assert [row.id for row in rows_of(data, kind)] == [f"f:{number}" for number in wanted]


@given(st.lists(st.sampled_from(["a,b", 'a,"b"', 'a,"', '"', "a", "", 'a,b"c']), max_size=12))
@example(['"', 'a,"'])
@settings(deadline=None)
def test_of_any_quotes_no_line_is_lost(lines: list[str]) -> None:
    """A good row has the lines from its own to the next row's; a bad quote is a bad row of one line."""
    lines = ["text,b", *lines, "last,row"]
    found = rows_of("\n".join(lines).encode(), "csv")
    places = [int(row.id[2:]) for row in found]
    assert places == sorted(set(places))
    for row, place, end in zip(found, places, [*places[1:], len(lines) + 1], strict=True):
        span = 1 + sum(cell.count("\n") for cell in row.values.values())
        if " field" not in row.error:  # of a row with too few of them, the lines are not kept
            assert not "".join(lines[place - 1 + span : end - 1])


def test_a_quote_that_is_never_closed_costs_its_own_row_alone() -> None:
    data = "text,b\n" + 'x,"open\n' + "y,z\n" * (LONGEST + 5)
    bad, *good = rows_of(data.encode(), "csv")
    assert (bad.id, "never closed" in bad.error) == ("f:2", True)
    assert len(good) == LONGEST + 5
    assert {tuple(row.values.values()) for row in good} == {("y", "z")}


FIRST_LINES = {
    '{"text": "x"}': "json",
    "{": "json",
    '[{"text": "x"}]': "json",
    "[": "json",
    "[sic] a text": "txt",
    "{braces}": "txt",
    "text,label": "csv",
    "id;text": "csv",
    '"text"': "csv",
    "a text, with a comma": "txt",
    "": "txt",
    "a long text " * 20_000: "txt",
}


@pytest.mark.parametrize("line", FIRST_LINES, ids=lambda line: line[:25])
def test_the_kind_is_seen_by_the_first_line(line: str) -> None:
    assert open_stream(io.BytesIO(line.encode()), "f", None, "utf-8", "text").kind == FIRST_LINES[line]
    kind = "csv" if FIRST_LINES[line] == "txt" else FIRST_LINES[line]
    assert open_stream(io.BytesIO(line.encode()), "f", None, "utf-8", None).kind == kind, "a table has columns"


DEEP = {"[" * 100_000: "is not JSON that can be read", f'{{"a": {"9" * 5000}}}': "is not JSON that can be read"}


@pytest.mark.parametrize("line", DEEP, ids=["lists", "digits"])
def test_what_python_cannot_read_is_a_bad_row(line: str) -> None:
    first, second = (
        rows_of(f'{{}}\n{{"a": {line}\n'.encode(), "json")
        if line[0] == "["
        else rows_of(f"{{}}\n{line}\n".encode(), "json")
    )
    assert not first.error
    assert second.error.startswith(DEEP[line])
