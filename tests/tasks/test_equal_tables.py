"""The same table as csv, .csv.gz, .xlsx and SQLite: the same digest, and the same features to the last bit."""

import csv
import datetime
import gzip
import io
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.arrow import rows_sha256
from llmft.data.pipeline import load
from llmft.training.features import encode

HEADER = ["postal", "size", "rooms", "since", "garden", "note", "label"]


def rows() -> list[list[Any]]:
    """Texts that look like numbers, whole and broken numbers, dates, flags, and some of each that are missing."""
    draw = random.Random(0)
    found = []
    for number in range(60):
        row = [
            f"{draw.randrange(20):03}",
            draw.choice([None, round(draw.random() * 100, 3), float(draw.randrange(9))]),
            draw.choice([None, 1, 2, 3]),
            draw.choice([None, datetime.date(2020, 1, 1) + datetime.timedelta(days=draw.randrange(1500))]),
            draw.choice([None, True, False]),
            draw.choice(["NA", "", "x", "a, b"]),
            draw.choice(["yes", "no"]) if number > 1 else ["yes", "no"][number],
        ]
        found.append(row)
    return found


def as_text(cell: Any) -> str:
    """A cell as a spreadsheet writes it into csv."""
    if isinstance(cell, bool):
        return str(cell).upper()
    return "" if cell is None else str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def written(kind: str, write: Callable[[str, str | bytes], Path]) -> str:
    if kind == "xlsx":
        book = openpyxl.Workbook()
        for row in [HEADER, *rows()]:
            book.active.append(row)
        book.save("a.xlsx")
    elif kind == "db":
        with sqlite3.connect("a.db") as database:
            database.execute(
                "create table t (postal text, size real, rooms integer, since text, garden text, note, label)"
            )
            cells = [[as_text(c) if isinstance(c, bool | datetime.date) else c for c in row] for row in rows()]
            database.executemany("insert into t values (?, ?, ?, ?, ?, ?, ?)", cells)
    else:
        stream = io.StringIO()
        csv.writer(stream).writerows([HEADER, *([as_text(cell) for cell in row] for row in rows())])
        content = stream.getvalue().encode()
        write(f"a.{kind}", gzip.compress(content) if kind == "csv.gz" else content)
    return f"a.{kind}"


@pytest.mark.parametrize("kind", ["csv.gz", "xlsx", "db"])
def test_the_features_are_equal(kind: str, write: Callable[[str, str | bytes], Path]) -> None:
    found = []
    for file in (written("csv", write), written(kind, write)):
        config = compose("finetune", ["+recipe=tabular_mlp", f"dataset.train={file}", "dataset.columns.label=label"])
        task = tasks.build(config.task)
        data = load(config.dataset, task)
        task = task.fit(data["train"], config.model)
        features = {name: encode(task, rows).table for name, rows in data.splits.items()}
        digests = {name: rows_sha256(rows, task.columns) for name, rows in data.splits.items()}
        found.append((task.state.notes, data.notes, digests, features))
    assert found[0] == found[1]
    assert sum(map(len, found[0][3].values())) == 60
