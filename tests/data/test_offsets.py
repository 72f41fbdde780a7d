"""Rows that count characters of a text: whatever stands in it, the same entities come out of every format."""

import csv
import io
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow.parquet
import pytest

from llmft import tasks
from llmft.data.pipeline import load
from llmft.predictions.rows import open_file
from llmft.schema.dataset import DatasetConfig
from llmft.schema.tasks import task_types
from llmft.tasks.text import entity_markers
from llmft.tasks.text.contexts import read_answers
from llmft.tasks.text.sentences import sentence_of

Write = Callable[..., Path]

# Line ends of three systems, signs that Python takes for line ends, blanks at both ends, and an accent on its own.
TEXT = " Note:\r\n\r\nFrom:\rdesk\u2028\x0b\x0c\x1c\x85\ncafe\u0301 \U0001f600\tDi Orr went to Bonn.\r\n "
WHO, WHERE = TEXT.index("Di Orr"), TEXT.index("Bonn")

ROWS: dict[str, dict[str, Any]] = {
    "token_classification": {
        "text": TEXT,
        "spans": [
            {"start": WHO, "end": WHO + 6, "label": "person"},
            {"start": WHERE, "end": WHERE + 4, "label": "place"},
        ],
    },
    "question_answering": {"question": "Where?", "context": TEXT, "answers": "Bonn", "answer_start": WHERE},
    "relation_extraction": {"text": TEXT, "head": [WHO, WHO + 6], "tail": [WHERE, WHERE + 4], "label": "went"},
}


def task_of(name: str) -> Any:
    return tasks.build(task_types()[name](name=name))


def found(task: str, row: dict[str, Any]) -> list[str]:
    """The entities of a row as a task takes them."""
    if task == "token_classification":
        return [f"{entity['label']} {entity['text']}" for entity in sentence_of(row).entities]
    if task == "question_answering":
        (answer,) = read_answers(row["answers"], row["answer_start"], row["context"])
        return [answer.text, row["context"][answer.start : answer.end]]
    sentence = entity_markers.read(row["text"], row["head"], row["tail"])
    return [sentence.text[slice(*span)] for span in (sentence.head, sentence.tail)]


WANTED = {
    "token_classification": ["person Di Orr", "place Bonn"],
    "question_answering": ["Bonn", "Bonn"],
    "relation_extraction": ["Di Orr", "Bonn"],
}


def written(row: dict[str, Any], kind: str) -> str:
    """Two such rows, in a file of this kind."""
    if kind == "json":
        return f"{json.dumps(row)}\n{json.dumps(row, ensure_ascii=False)}\n"
    stream = io.StringIO()
    cells = [value if isinstance(value, str) else json.dumps(value) for value in row.values()]
    csv.writer(stream, delimiter="\t" if kind == "tsv" else ",", lineterminator="\r\n").writerows([row, cells, cells])
    return stream.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "json"])
@pytest.mark.parametrize("task", ROWS)
def test_offsets_mean_the_same_characters_in_every_format(task: str, kind: str, encoding: str, write: Write) -> None:
    file = write(f"a.{kind}", written(ROWS[task], kind).encode(encoding))
    format = "json" if kind == "json" else "csv"
    keys = {"format": format, "train": file.name, "encoding": encoding, "split": {"validation": 0, "test": 0}}
    mended = {"clean": {"normalize": "NFKC"}}  # would take a character away
    built = task_of(task)
    for more in ({}, mended):
        rows = load(DatasetConfig.model_validate(keys | more), built).splits["train"]
        assert [found(task, row) for row in rows] == [WANTED[task]] * 2
        assert rows[0]["context" if task == "question_answering" else "text"] == TEXT
    asked = open_file(file, kind, encoding, None)
    assert [row.values[name] for row in asked.rows for name in ("text", "context") if name in row.values] == [TEXT] * 2


@pytest.mark.parametrize("format", ["excel", "sqlite", "parquet"])
@pytest.mark.parametrize("task", ROWS)
def test_offsets_mean_the_same_characters_in_files_that_are_no_text(task: str, format: str, here: Path) -> None:
    row = ROWS[task]
    cells = {name: value if isinstance(value, str | int) else json.dumps(value) for name, value in row.items()}
    if format == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({name: [value] * 2 for name, value in row.items()}), "a")
    elif format == "sqlite":
        with sqlite3.connect("a") as database:
            database.execute(f"create table t ({', '.join(cells)})")
            places = ", ".join("?" * len(cells))
            database.executemany(f"insert into t values ({places})", [[*cells.values()]] * 2)
    else:  # what XML cannot hold stands as _x000D_, as Excel writes it
        texts = [
            re.sub("[\\x00-\\x08\\x0b-\\x1f]", lambda c: f"_x{ord(c[0]):04X}_", str(cell)) for cell in cells.values()
        ]
        book = openpyxl.Workbook()
        for line in (list(cells), texts, texts):
            book.active.append(line)
        book.save("a")
    config = DatasetConfig.model_validate({"format": format, "train": "a", "split": {"validation": 0, "test": 0}})
    rows = load(config, task_of(task)).splits["train"]
    assert [found(task, row) for row in rows] == [WANTED[task]] * 2


def test_a_line_ends_at_newline_alone(write: Write) -> None:
    """Both lines of every pair end with the same number, whatever stands within them."""
    odd = ["\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r\r"]
    one = "".join(f"one{odd[i % 10] if i < 30 else ''} {i}\n" for i in range(200))
    other = "".join(f"other{odd[i % 10] if i > 170 else ''} {i}\r\n" for i in range(200))
    write("a.en", one), write("a.de", other)
    config = DatasetConfig(format="parallel", train=["a.en", "a.de"], split={"validation": 0, "test": 0})
    rows = load(config, task_of("translation")).splits["train"]
    assert rows["id"][:] == [f"a.en:{i + 1}" for i in range(200)]
    assert all(row["source"].split()[-1] == row["target"][0].split()[-1] == str(i) for i, row in enumerate(rows))
    assert rows[0]["source"] == "one\r 0" and rows[171]["target"] == ["other\u2028 171"]
