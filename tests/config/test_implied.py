"""`dataset.train=FILE` is enough: the format follows from endings and first bytes, unless it is said."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset, DatasetDict

from llmft.config.folders import shipped
from llmft.config.implied import implied
from llmft.config.load import load
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError

Write = Callable[[str, str | bytes], Path]
LINE = '{"text": "a", "label": "b"}\n'


def dataset(*words: str, command: str = "finetune", recipe: str = "bert_textcls") -> DatasetConfig:
    return load(command, [f"+recipe={recipe}", *words]).dataset


CASES = [
    ("reviews", "a.csv", "text,label\n", "csv"),
    ("reviews", "a.TSV", "text\tlabel\n", "csv"),
    ("reviews", "a.csv.gz", None, "csv"),
    ("reviews", "a.jsonl", LINE, "json"),
    ("reviews", "a.jsonl.zst", None, "json"),
    ("reviews", "a.json", f"[{LINE}]", "json"),
    ("reviews", "a.parquet", None, "parquet"),
    ("reviews", "a.xlsx", None, "excel"),
    ("reviews", "a.db", None, "sqlite"),
    ("reviews", "a.arrow", None, "arrow"),
    ("reviews", "lines.txt", LINE, "json"),
    ("reviews", "export", LINE, "json"),  # no ending: the first letter tells
    ("reviews", "a.txt", "text,label\n", "csv"),  # no ending of its own: as the recipe's data
    ("entities", "a.txt", "Ann B-person\n", "conll"),
    ("entities", "a.jsonl", LINE, "json"),
    ("questions", "a.json", '{"data": []}', "squad"),
    ("questions", "b.json", f"[{LINE}]", "json"),
    ("questions", "a.jsonl", LINE, "json"),
    ("preferences", "a.parquet", None, "parquet"),
    ("breast_cancer", "a.csv", "a,b\n", "csv"),
    ("pydocs", "a.txt", "text\n", "text"),
    ("pydocs", "a.md", "text\n", "text"),
    ("pydocs", "a.jsonl", LINE, "json"),
    ("pydocs", "a.py", "'''text'''\n", "pydocs"),
    ("translations", "[a.en,a.zh]", None, "parallel"),
    ("translations", "de.po", None, "po"),
]


def words_of(option: str, train: str, pretrains: bool = False) -> list[str]:
    """What a file says beside an option of `dataset`."""
    section = yaml.safe_load((shipped("configs") / f"dataset/{option}.yaml").read_text(encoding="utf-8"))
    names: Any = train.strip("[]").split(",") if train.startswith("[") else train
    return implied(section, {"train": names}, None, pretrains)


@pytest.mark.parametrize(("option", "name", "content", "format"), CASES)
def test_the_format_follows(option: str, name: str, content: str | None, format: str, write: Write) -> None:
    if content is not None:
        write(name, content)
    found = words_of(option, name, pretrains=option == "pydocs")
    # Nothing is to be said of Python files where Python files are read.
    assert found[:1] == ([] if format == option else [f"dataset={format}"])


def test_the_whole_option_gives_way(write: Write) -> None:
    write("a.json", '{"data": []}')
    found = dataset("dataset.train=a.json", recipe="bert_qa")
    assert (found.format, found.train, found.test, found.validation) == ("squad", "a.json", None, None)
    assert found.columns == {"group": "context"}  # as of dataset=squad


def test_what_is_said_wins(write: Write) -> None:
    write("a.txt", LINE)
    assert dataset("dataset=json", "dataset.train=a.txt").format == "json"
    assert dataset("dataset=csv", "dataset.format=json", "dataset.train=a.txt").format == "json"
    assert dataset("dataset=csv", "dataset.train=b.jsonl").format == "csv"  # there is no such file yet
    write("b.jsonl", LINE)
    with pytest.raises(UserError, match=r"b.jsonl +is JSON, and dataset=csv reads tables"):
        dataset("dataset=csv", "dataset.train=b.jsonl")


def test_first_bytes_win_over_an_ending(here: Path) -> None:
    with sqlite3.connect("a.csv") as database:
        database.execute("create table t (text, label)")
    assert dataset("dataset.train=a.csv").format == "sqlite"


def test_what_can_t_be_read_is_called_what_it_is(write: Write) -> None:
    write("a.csv", b"\x89PNG\r\n\x1a\n\0")
    with pytest.raises(UserError, match=r"a.csv +is an image \(PNG\) \(dataset.train\)"):
        dataset("dataset.train=a.csv")


def test_columns_typed_stay_and_those_of_the_option_go(write: Write) -> None:
    found = dataset("dataset.train=a.csv", "dataset.columns.text=body", "dataset.encoding=gb18030")
    assert (found.columns, found.encoding, found.path) == ({"text": "body"}, "gb18030", None)


def test_a_recipe_that_names_its_format_is_followed_by_the_file(write: Write, here: Path) -> None:
    write(
        "recipes/mine.yaml",
        "# @package _global_\ndefaults:\n  - override /dataset: csv\ndataset: {format: csv, columns: {text: body}}\n",
    )
    found = dataset("dataset.train=a.jsonl", recipe="mine")
    assert (found.format, found.columns) == ("json", {"text": "body"})


def test_a_train_file_takes_the_test_file_along(write: Write) -> None:
    found = dataset("dataset.train=a.jsonl", "dataset.test=b.jsonl")
    assert (found.format, found.test) == ("json", "b.jsonl")
    with pytest.raises(UserError, match=r"several formats: a.jsonl \(train\) is json, b.csv \(test\) is csv"):
        dataset("dataset.train=a.jsonl", "dataset.test=b.csv")
    with pytest.raises(UserError, match=r"not part of dataset=reviews .*Write dataset.train=FILE too"):
        dataset("dataset.test=b.csv")


def test_a_file_for_an_option_is_answered() -> None:
    with pytest.raises(UserError, match=r"dataset=a.csv +names a file.*Write dataset.train=a.csv"):
        dataset("dataset=a.csv")


FOLDERS: list[tuple[dict[str, str], str, dict[str, Any]]] = [
    ({"d/a.csv": "x", "d/b.csv": "x", "d/README.md": "x"}, "csv", {"train": None}),
    ({"d/pos/a.txt": "x", "d/neg/b.txt": "x"}, "folder", {"train": None}),
    (
        {"d/train/pos/a.txt": "x", "d/test/pos/b.txt": "x"},
        "folder",
        {"train": "d/train", "validation": None, "test": "d/test"},
    ),
    (
        {"d/train.csv": "x", "d/dev.csv": "x", "d/test.csv": "x"},
        "csv",
        {"train": "d/train.csv", "validation": "d/dev.csv", "test": "d/test.csv"},
    ),
    ({"d/train.jsonl.gz": "", "d/val.jsonl.gz": ""}, "json", {"train": "d/train.jsonl.gz"}),
]


@pytest.mark.parametrize(("files", "format", "splits"), FOLDERS)
def test_folders(files: dict[str, str], format: str, splits: dict[str, Any], write: Write) -> None:
    import gzip

    for name, content in files.items():
        write(name, gzip.compress(b"{}") if name.endswith(".gz") else content)
    found = dict(word.split("=") for word in words_of("reviews", "d"))
    assert found["dataset"] == format
    assert {split: found.get(f"dataset.{split}", "").strip("'") or None for split in splits} == splits


def test_splits_of_a_folder_give_way_to_what_is_typed(write: Write) -> None:
    for name in ("d/train.csv", "d/test.csv"):
        write(name, "text,label\n")
    assert dataset("dataset.train=d", "dataset.test=e.csv").train == "d"


def test_what_save_to_disk_left(here: Path) -> None:
    rows = Dataset.from_dict({"text": ["a"], "label": ["b"]})
    rows.save_to_disk("one")
    DatasetDict(train=rows, test=rows).save_to_disk("all")
    assert dataset("dataset.train=one").format == "arrow"
    found = dataset("dataset.train=all")
    assert (found.format, found.train, found.test) == ("arrow", "all/train", "all/test")
    found = dataset("dataset=hub", "dataset.path=one")
    assert (found.format, found.path, found.train) == ("arrow", "one", ".")
    found = dataset("dataset=hub", "dataset.path=all", "dataset.test=test")
    assert (found.format, found.path, found.train, found.test) == ("arrow", "all", "train", "test")
    found = dataset("dataset=hub", "dataset.path=someone/else", "dataset.test=test")
    assert (found.format, found.train) == ("hub", "train")


def run_of(write: Write, *words: str) -> None:
    config = load("finetune", ["+recipe=bert_textcls", *words]).model_dump(mode="json")
    write("run/config.yaml", yaml.safe_dump(config, allow_unicode=True))


def test_eval_follows_the_file(write: Write) -> None:
    """The columns of training stay; a file of the same format joins those of training, as before."""
    write("new.jsonl", json.dumps({"body": "a", "label": "b"}))
    run_of(write, "dataset.train=old.csv", "dataset.columns.text=body")
    found = load("eval", ["run", "dataset.test=new.jsonl"]).dataset
    assert (found.format, found.train, found.test, found.columns) == ("json", None, "new.jsonl", {"text": "body"})
    found = load("eval", ["run", "dataset.test=new.csv"]).dataset
    assert (found.format, found.train, found.test) == ("csv", "old.csv", "new.csv")
    with pytest.raises(UserError, match=r"is JSON"):
        load("eval", ["run", "dataset=csv", "dataset.test=new.jsonl"])


def test_eval_of_a_run_on_data_that_came_along(write: Write) -> None:
    run_of(write)
    found = load("eval", ["run", "dataset.test=new.csv"]).dataset
    assert (found.format, found.path, found.train, found.test) == ("csv", None, None, "new.csv")
