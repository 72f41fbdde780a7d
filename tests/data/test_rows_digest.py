"""The digest of rows is that of what they say, whichever kind of file says it."""

import gzip
import json
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from llmft.data.arrow import RowsDigest
from llmft.data.corpus import load_corpus
from llmft.data.pipeline import Data, load
from llmft.schema.column import CORPUS_COLUMNS, Column
from llmft.schema.dataset import DatasetConfig

Write = Callable[..., Path]
NONE = {"validation": 0, "test": 0}


class Task:
    """A task as the data see it."""

    columns: ClassVar = {"features": Column("features"), "label": Column("label")}

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        return {"features": [{"n": i} for i in range(rows)], "label": ["a", "b"] * (rows // 2)}


class Texts(Task):
    columns: ClassVar = {"text": Column("text"), "label": Column("label"), "text_pair": Column("text", required=False)}


TABLE = "zip,day,rooms,size,new,label\n001,2024-05-03,3,0.10,TRUE,a\n010,,NA,2.0,false,b\n007,2024-05-04,4,,TRUE,a\n"
TYPED: dict[str, list[Any]] = {
    "zip": ["001", "010", "007"],
    "day": ["2024-05-03", None, "2024-05-04"],
    "rooms": [3.0, None, 4.0],
    "size": [0.1, 2.0, None],
    "new": [True, False, True],
    "label": ["a", "b", "a"],
}


def of(train: str, format: str = "csv", **keys: Any) -> DatasetConfig:
    return DatasetConfig.model_validate({"format": format, "train": train, "split": NONE, **keys})


def train(config: DatasetConfig, task: Any = None) -> str:
    return load(config, task or Task()).rows_sha256["train"]


@pytest.fixture
def expected(write: Write) -> str:
    write("a.csv", TABLE)
    return train(of("a.csv"))


def test_the_same_rows_of_a_table_in_other_kinds_of_files(expected: str, write: Write, here: Path) -> None:
    write("b.csv.gz", gzip.compress(TABLE.replace(",", ";").replace("\n", "\r\n").encode("utf-16")))
    assert train(of("b.csv.gz", encoding="utf-16")) == expected
    rows = [dict(zip(TYPED, row, strict=True)) for row in zip(*TYPED.values(), strict=True)]
    lines = [dict(reversed(row.items())) if number else row for number, row in enumerate(rows)]
    write("c.jsonl", "".join(f"{json.dumps(row)}\n" for row in lines))
    assert train(of("c.jsonl", "json")) == expected
    pyarrow.parquet.write_table(pyarrow.table(TYPED), here / "d.parquet")
    assert train(of("d.parquet", "parquet")) == expected


def test_a_workbook_and_a_database_say_the_same(expected: str, write: Write, here: Path) -> None:
    """Numbers as numbers, dates as dates, empty cells as none: what people save from a spreadsheet or a table."""
    book = openpyxl.Workbook()
    book.active.append(list(TYPED))
    rows = list(zip(*TYPED.values(), strict=True))
    for zip_code, day, *others in rows:
        book.active.append([zip_code, day and datetime.fromisoformat(day), *others])
    book.save(here / "e.xlsx")
    assert train(of("e.xlsx", "excel")) == expected
    with sqlite3.connect(here / "f.db") as base:
        base.execute("create table t (zip text, day text, rooms integer, size real, new text, label text)")
        values = [(z, d, r, s, str(n).lower(), label) for z, d, r, s, n, label in rows]
        base.executemany("insert into t values (?, ?, ?, ?, ?, ?)", values)
    base.close()
    assert train(of("f.db", "sqlite")) == expected


CHANGES = {
    "a number": ("3,0.10", "3,0.11"),
    "a zero before a number": ("007", "7"),
    "a date": ("05-04", "05-05"),
    "a label": ("4,,TRUE,a", "4,,TRUE,b"),
    "an empty cell": ("NA", "1"),
    "the name of a column": ("rooms", "Rooms"),
    "the order of rows": ("001,2024-05-03,3,0.10,TRUE,a\n010,,NA,2.0,false,b\n", "010,,NA,2.0,false,b\n001,2024-05-03,3,0.10,TRUE,a\n"),
    "a row more": ("4,,TRUE,a\n", "4,,TRUE,a\n4,,4,,TRUE,a\n"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_other_rows_have_another(change: str, expected: str, write: Write) -> None:
    before, after = CHANGES[change]
    assert before in TABLE
    write("b.csv", TABLE.replace(before, after))
    assert train(of("b.csv")) != expected


def test_the_digest_of_one_version_is_that_of_the_next(expected: str) -> None:
    """Written down, since runs of earlier versions are compared by it."""
    assert expected == "2eb59c214523040429650d6ab03866573dfbe9d6e77fc15ad519b01f2875455c"


def test_streamed_rows_have_the_digest_of_rows_in_memory(write: Write) -> None:
    rows = "text,label\n" + "".join(f"row {i} 好,{'ab'[i % 2]}\n" for i in range(2500))  # three chunks
    write("a.csv", rows)
    write("v.csv", "text,label\nmore,a\n")
    whole = load(of("a.csv", validation="v.csv"), Texts())
    streamed = load(of("a.csv", validation="v.csv", streaming=True), Texts())
    assert streamed.stream is not None
    assert streamed.rows_sha256 == whole.rows_sha256
    assert whole.rows_sha256.keys() == {"train", "validation"}


def test_an_optional_column_without_a_value_is_none(write: Write) -> None:
    write("a.csv", "text,label\nx,a\ny,b\n")
    write("b.csv", "text,text_pair,label\nx,,a\ny,,b\n")
    write("c.csv", "text,text_pair,label\nx,,a\ny,z,b\n")
    roles = Texts.columns | {"text_pair": Column("text", required=False, blank=True)}
    first, second, third = (_digest(load(of(f"{name}.csv"), _with(roles)), roles) for name in "abc")
    assert first == second != third


def _with(roles: dict[str, Column]) -> Any:
    return type("Other", (Texts,), {"columns": roles})()


def _digest(data: Data, roles: dict[str, Column]) -> str:
    """In batches of one row: where a batch ends must not matter."""
    digest = RowsDigest(roles)
    table = data["train"].data.table
    for row in range(len(table)):
        digest.add(table.slice(row, 1))
    assert digest.hexdigest() == data.rows_sha256["train"]
    return digest.hexdigest()


def test_json_is_compared_by_its_value() -> None:
    roles = {"answers": Column("json"), "text": Column("text")}
    found = set()
    for answers in ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}', '{"b":[2],"a":2}'):
        digest = RowsDigest(roles)
        digest.add(pyarrow.table({"id": ["x:1"], "answers": [answers], "text": ["t"]}))
        found.add(digest.hexdigest())
    assert len(found) == 2


def test_documents_are_compared_by_where_they_begin(write: Write, here: Path) -> None:
    texts = [" ".join(f"word{i}{j}" for j in range(20)) for i in range(3)]
    write("a.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts))
    for number, text in enumerate(texts):
        write(f"books/{number}.txt", text)
    task = _with(CORPUS_COLUMNS)
    found = []
    for number, config in enumerate((of("a.jsonl", "json"), of("books", "text"))):
        (here / str(number)).mkdir()
        found.append(load_corpus(config, task, here / str(number)).rows_sha256)
    assert found[0] == found[1]
