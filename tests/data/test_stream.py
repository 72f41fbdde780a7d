"""Rows that are read while training are those that would have been read before it, and as well checked."""

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pyarrow
import pyarrow.parquet
import pytest

from llmft.data.pipeline import Data, load
from llmft.data.source import Table
from llmft.data.stream import Sample
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Failure, UserError
from tests.data.test_pipeline import FAULTS, JSON_FAULTS, Texts, files

Write = Callable[..., Path]
NO_SHARES = {"validation": 0, "test": 0}


class Cells:
    """A task that takes all columns."""

    columns: ClassVar = {"features": Column("features"), "label": Column("label")}

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in ("csv_files", "json_files", "binary_tables"):
        monkeypatch.setattr(f"llmft.data.{reader}.CHUNK", 4)


def read(task: Any = None, **keys: Any) -> Data:
    config = {"split": NO_SHARES, "streaming": True} | keys
    return load(DatasetConfig.model_validate(config), task or Texts())


def both(task: Any = None, **keys: Any) -> tuple[Data, Data]:
    """The same rows in memory and as a stream."""
    return read(task, streaming=False, **keys), read(task, **keys)


def rows(stream: Any) -> list[dict[str, Any]]:
    return [row for chunk in stream for row in chunk]


CSV = "text,label\n" + "".join(f'"row {i}\nof two lines",{i % 3}\n' for i in range(15))
MIXED = (
    '{"text": "a", "label": "x", "size": 1}',
    '{"label": "x", "text": "b", "size": null, "grade": 3}',
    '{"text": "c", "label": "y", "size": 2.5, "grade": "A"}',
)
FORMATS: dict[str, tuple[dict[str, Any], dict[str, str | bytes]]] = {
    "csv": ({"format": "csv"}, {"d/a.csv": CSV, "d/b.csv": CSV.replace("row", "line")}),
    "other columns": ({"format": "csv"}, {"d/a.csv": CSV, "d/b.csv": "label,more,text\n1,2,a\n"}),
    "another encoding": ({"format": "csv", "encoding": "utf-16"}, {"d/a.csv": CSV.encode("utf-16")}),
    "tsv with quotes": ({"format": "csv"}, {"d/a.tsv": CSV.replace(",", "\t")}),
    "tsv without": ({"format": "csv"}, {"d/a.tsv": 'text\tlabel\n"open\t1\nb\t0\nclosed"\t1\nc\t0\nd\t1\n'}),
    "empty texts": ({"format": "csv", "drop_empty": True}, {"d/a.csv": CSV + " ,1\n" * 9 + "last,2\n"}),
    "no labels": ({"format": "csv", "drop_unlabeled": True}, {"d/a.csv": CSV + "a,\n" * 9 + "last,2\n"}),
    "jsonl": ({"format": "json"}, {"d/a.jsonl": "".join(f'{{"label": {i}, "text": "t{i}"}}\n\n' for i in range(9))}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_has_the_rows_that_memory_would_hold(name: str, write: Write) -> None:
    keys, texts = FORMATS[name]
    for file, text in texts.items():
        write(file, text)
    plain, streamed = both(train="d", **keys)
    assert streamed.stream is not None
    assert rows(streamed.stream) == list(plain["train"]) == list(streamed["train"])
    assert len(streamed.stream) == len(plain["train"])
    assert (streamed.digests, streamed.notes) == (plain.digests, plain.notes)
    assert plain.stream is None


def test_a_column_has_one_type_in_all_chunks(write: Write) -> None:
    """As in memory: `size` is a number with a point and `grade` a text, also where a chunk has whole numbers only."""
    write("a.jsonl", "\n".join(line for line in MIXED for _ in range(4)) + "\n")
    plain, streamed = both(Cells(), format="json", train="a.jsonl")
    assert rows(streamed.stream) == list(plain["train"])
    cells = [row["features"] for row in rows(streamed.stream)]
    assert [cells[i]["size"] for i in (0, 4, 8)] == [1.0, None, 2.5]
    assert [cells[i]["grade"] for i in (0, 4, 8)] == [None, "3", "A"]


@pytest.mark.parametrize("group", [3, 8, 100])
def test_parquet_is_read_by_parts_of_row_groups(group: int, here: Path) -> None:
    table = pyarrow.table({"text": [f"t{i}" for i in range(30)], "label": [i % 2 for i in range(30)]})
    pyarrow.parquet.write_table(table, here / "a.parquet", row_group_size=group)
    plain, streamed = both(format="parquet", train="a.parquet")
    assert streamed.stream is not None
    assert max(chunk.rows for chunk in streamed.stream.chunks) <= 4
    assert rows(streamed.stream) == list(plain["train"])


def test_windows_follow_the_order_of_chunks(write: Write) -> None:
    write("a.csv", "text,label\n" + "".join(f"{i},{i % 2}\n" for i in range(10)))  # chunks of 4, 4 and 2
    stream = read(train="a.csv").stream
    assert stream is not None

    def texts(*numbers: int) -> list[list[str]]:
        return [window["text"][:] for window in stream.windows([2, 0, 1], *numbers)]

    assert texts(0, 10, 5) == [["8", "9", "0", "1", "2"], ["3", "4", "5", "6", "7"]]
    assert texts(0, 10, 100) == [["8", "9", "0", "1", "2", "3", "4", "5", "6", "7"]]
    assert texts(3, 7, 3) == [["1", "2", "3"], ["4"]]


OF_SHARES = ("one row", "numbers as labels", "many texts as labels")  # none is taken of rows that are streamed
IN_MEMORY = ("both at once", "leaks by name")  # a stream does not know what its rows are called, and is read first


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in OF_SHARES + IN_MEMORY])
def test_a_fault_of_streamed_rows_is_named_as_in_memory(name: str, write: Write) -> None:
    keys, texts, what = FAULTS[name]
    with pytest.raises(UserError) as error:
        read(**files(write, **texts) | keys)
    assert what in str(error.value)


@pytest.mark.parametrize("name", JSON_FAULTS)
def test_a_fault_far_down_is_named(name: str, write: Write) -> None:
    text, _ = JSON_FAULTS[name]
    good = '{"text": "fine", "label": 5}\n' * 40
    write("a.jsonl", good + text)
    with pytest.raises(UserError) as error:
        read(format="json", train="a.jsonl")
    assert any(f"a.jsonl:{line} " in str(error.value) for line in (41, 42, 43))


@pytest.mark.parametrize(("good", "row"), [(6, 7), (8, 9)])
def test_what_does_not_go_with_the_rows_before_it_is_named(good: int, row: int, write: Write) -> None:
    """Within a chunk, and at its start."""
    write("a.jsonl", '{"size": 1, "label": "a"}\n' * good + '{"size": [2], "label": "b"}\n' * 4)
    with pytest.raises(UserError, match=rf"a\.jsonl:{row} .*does not fit the other rows"):
        read(Cells(), format="json", train="a.jsonl")


def test_faults_of_all_chunks_come_at_once(write: Write) -> None:
    lines = [("", "1") if i in (3, 17, 29) else (f"t{i}", "" if i in (5, 25) else "1") for i in range(40)]
    write("a.csv", "text,label\n" + "".join(f"{text},{label}\n" for text, label in lines))
    with pytest.raises(UserError) as error:
        read(train="a.csv")
    keys = [problem.key for problem in error.value.problems]
    assert keys == [
        "a.csv:5",
        "a.csv:7",
        "a.csv:19",
        "a.csv:27",
        "a.csv:31",
        "dataset.drop_empty",
        "dataset.drop_unlabeled",
    ]


def test_a_list_of_json_cannot_be_streamed(write: Write) -> None:
    write("a.json", '[{"text": "a", "label": 1}]')
    with pytest.raises(
        UserError, match=r"a\.json  is one list, which cannot be read in parts. Write one object a line"
    ):
        read(format="json", train="a.json")


def test_a_file_that_changes_while_it_is_read_ends_the_run(write: Write) -> None:
    file = write("a.csv", CSV)
    stream = read(train="a.csv").stream
    assert stream is not None
    file.write_text(CSV.replace("row", "roow"))
    with pytest.raises(Failure, match=r"a\.csv has changed since it was first read"):
        rows(stream)


def test_rows_that_another_split_has_are_counted(write: Write) -> None:
    write("a.csv", "text,label\n" + "".join(f"text {i},1\n" for i in range(300)))
    write("b.csv", "text,label\n" + "TEXT  7,1\n" + "".join(f"new {i},1\n" for i in range(199)))
    plain, streamed = both(train="a.csv", test="b.csv")
    assert streamed.notes == plain.notes == ["1 of the 200 rows of test is also in train"]
    with pytest.raises(UserError, match="1 of the 200 rows of test is also in train"):
        read(train="a.csv", test="b.csv", max_overlap=0)


def test_a_task_learns_from_a_sample_with_every_label(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmft.data.stream.SAMPLE", 10)
    write("a.csv", "text,label\n" + "".join(f"text {i},{'rare' if i == 400 else i % 2}\n" for i in range(500)))
    streamed = read(train="a.csv")
    assert 10 <= len(streamed["train"]) <= 13
    assert set(streamed["train"]["label"]) == {"0", "1", "rare"}
    assert streamed.notes == [
        f"train: scales and vocabularies are fitted to {len(streamed['train'])} of its 500 rows, drawn at random"
    ]


def test_few_rows_of_a_stream_are_held_in_memory(write: Write) -> None:
    write("a.csv", "text,label\n" + "".join(f"text {i},{'rare' if i == 400 else i % 2}\n" for i in range(500)))
    data = read(train="a.csv", max_rows=20)
    assert data.stream is None
    assert len(data["train"]) == 20
    assert "rare" in data["train"]["label"]


def test_a_sample_is_fair() -> None:
    """Of 40 rows in chunks of 4, each is drawn 10 times in 40, give or take 4 standard deviations."""
    counts = [0] * 40
    for seed in range(2000):
        sample = Sample(10, seed)
        for start in range(0, 40, 4):
            ids = [str(i) for i in range(start, start + 4)]
            sample.add(Table({"text": ids}, ids))
        drawn = sample.table()
        assert drawn.ids == sorted(drawn.ids, key=int) == drawn.columns["text"]
        assert len(set(drawn.ids)) == 10
        for row in drawn.ids:
            counts[int(row)] += 1
    assert all(abs(count - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5 for count in counts)


def test_memory_does_not_grow_with_the_rows(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking and reading 1.6 MB of rows takes 0.3 MB, as much as 0.1 MB of rows take; in memory they take more."""
    monkeypatch.setattr("llmft.data.csv_files.CHUNK", 50)
    monkeypatch.setattr("llmft.data.stream.SAMPLE", 50)
    letters = random.Random(0)
    lines = (f"{letters.randbytes(100).hex()},{i % 2}\n" for i in range(8000))
    size = len(write("a.csv", "text,label\n" + "".join(lines)).read_bytes())
    peaks = {}
    for streaming in (True, False):
        tracemalloc.start()
        data = read(train="a.csv", streaming=streaming)
        assert sum(len(chunk) for chunk in data.stream or [data["train"]]) == 8000
        peaks[streaming] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[True] < size / 2 < size < peaks[False]
