"""From the section `dataset` to the splits of a run: read, given roles, checked, split. No model is needed for it."""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import datasets
import pyarrow

from llmft.data import checks
from llmft.data.files import digest
from llmft.data.read import read_split, source_files
from llmft.data.roles import assign
from llmft.data.split import split
from llmft.data.table import Table, listed
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig, SplitConfig
from llmft.schema.problem import Problem, UserError

SPLITS = ("train", "validation", "test")


class HasRows(Protocol):
    """What the data need to know of a task."""

    columns: ClassVar[dict[str, Column]]

    def synthetic(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Made-up rows by role."""


@dataclass
class Data:
    """The rows of a run: per split a Dataset with a column a role, and `id`, `FILE:LINE` or `FILE:ROW`."""

    splits: dict[str, datasets.Dataset]
    notes: list[str] = field(default_factory=list)
    """What the user should know about the rows, a line each."""
    digests: dict[str, str] = field(default_factory=dict)
    """sha256 of each file that was read."""

    def __getitem__(self, name: str) -> datasets.Dataset:
        return self.splits[name]


def load(config: DatasetConfig, task: HasRows, splits: tuple[str, ...] = SPLITS) -> Data:
    """The splits that a configuration names, checked.

    Args:
        splits: the ones wanted. `train` is read all the same where it is named: the others may be shares of it, or
            overlap with it.

    Raises:
        UserError: with every problem of the data, by file and row.
    """
    tables, digests = _synthetic(config, task) if config.format == "synthetic" else _read(config, task)
    notes: list[str] = []
    for name, table in tables.items():
        if rows := checks.empty_inputs(table, task.columns):
            if not config.drop_empty:
                found = [Problem(table.ids[row], f"has an empty text ({name})") for row in rows]
                raise UserError(
                    [*listed(found), Problem("dataset.drop_empty", "set it to true to leave such rows out")],
                    "the data",
                )
            gone = set(rows)
            tables[name] = _take(table, [row for row in range(len(table)) if row not in gone])
            notes.append(f"{name}: {len(rows)} rows with an empty text were left out")
    problems = [p for name, table in tables.items() for p in checks.missing_labels(table, task.columns, name)]
    problems += [Problem(f"dataset.{name}", "has 0 rows") for name, table in tables.items() if not len(table)]
    if problems:
        raise UserError(problems, "the data")
    tables = _shared_out(tables, config, task.columns)
    if config.max_rows:
        tables = {name: _sample(table, config.max_rows, config.split) for name, table in tables.items()}
    if problems := checks.roles_differ(tables, task.columns):
        raise UserError(problems, "the data")
    keys = {name: checks.input_keys(table, task.columns) for name, table in tables.items()}
    if "train" in keys:
        notes += checks.repeats(keys["train"], tables["train"].columns.get("label"))
    found_notes, problems = checks.overlaps(keys, config.max_overlap)
    if problems:
        raise UserError(problems, "the data")
    wanted = {name: _dataset(table) for name, table in tables.items() if name in splits}
    return Data(wanted, notes + found_notes, digests)


def source_digests(config: DatasetConfig) -> dict[str, str]:
    """sha256 of each file that `load` would read; nothing for data that do not lie in files.

    Raises:
        UserError: naming the files that are not there.
    """
    files: list[Path] = []
    problems: list[Problem] = []
    for name in SPLITS:
        if source := getattr(config, name):
            try:
                files += source_files(config, name, source)
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(problems, "the data")
    return {str(file): digest(file) for file in files}


def _read(config: DatasetConfig, task: HasRows) -> tuple[dict[str, Table], dict[str, str]]:
    tables: dict[str, Table] = {}
    owners: dict[str, tuple[str, Path]] = {}
    problems: list[Problem] = []
    digests: dict[str, str] = {}
    for name in SPLITS:
        source = getattr(config, name)
        if not source:
            continue
        try:
            table, files = read_split(config, name, source)
            tables[name] = assign(table, config, task.columns, name) if len(table) else table
        except UserError as error:
            problems += error.problems
            continue
        for file in files:
            digests[str(file)] = digest(file)
            owner, other = owners.setdefault(digests[str(file)], (name, file))
            if owner != name:
                problems.append(Problem(f"dataset.{name}", f"{file} holds the same bytes as {other} of {owner}"))
    problems += [Problem(f"dataset.{name}", "has 0 rows") for name, table in tables.items() if not len(table)]
    if problems:
        raise UserError(problems, "the data")
    return tables, digests


def _synthetic(config: DatasetConfig, task: HasRows) -> tuple[dict[str, Table], dict[str, str]]:
    rows = {"train": config.max_rows or 256, "validation": 16, "test": 16}
    tables = {
        name: Table(
            task.synthetic(count, seed=config.split.seed + index),
            [f"synthetic-{name}:{i}" for i in range(1, count + 1)],
        )
        for index, (name, count) in enumerate(rows.items())
    }
    return tables, {}


def _shared_out(tables: dict[str, Table], config: DatasetConfig, roles: dict[str, Column]) -> dict[str, Table]:
    """Take what has no file of its own from train."""
    shares = {
        name: getattr(config.split, name) for name in SPLITS[1:] if name not in tables and getattr(config.split, name)
    }
    if "train" not in tables or not shares:
        return tables
    train = tables["train"]
    labels = train.columns.get("label") if config.split.stratify else None
    parts = split(checks.input_keys(train, roles), labels, shares, config.split.seed)
    empty = [
        Problem(f"dataset.split.{name}", f"leaves {name} without rows: train has {len(train)}")
        for name, rows in parts.items()
        if not rows
    ]
    if empty:
        raise UserError(empty, "the data")
    found = {**tables, **{name: _take(train, rows) for name, rows in parts.items()}}
    return {name: found[name] for name in SPLITS if name in found}


def _sample(table: Table, rows: int, how: SplitConfig) -> Table:
    """`rows` rows at random; if stratified, one of each label first, then each label's share."""
    if len(table) <= rows:
        return table
    order = random.Random(how.seed).sample(range(len(table)), len(table))
    labels = table.columns.get("label") if how.stratify else None
    if labels:
        counts, seen = Counter(labels), Counter[Any]()
        place: dict[int, tuple[bool, float]] = {}
        for row in order:
            rank = seen[labels[row]]
            place[row] = (rank > 0, (rank + 0.5) / counts[labels[row]])
            seen[labels[row]] += 1
        order.sort(key=place.__getitem__)
    return _take(table, sorted(order[:rows]))


def _take(table: Table, rows: list[int]) -> Table:
    return Table(
        {name: [column[row] for row in rows] for name, column in table.columns.items()},
        [table.ids[row] for row in rows],
    )


def _dataset(table: Table) -> datasets.Dataset:
    columns = {}
    for name, values in {"id": table.ids, **table.columns}.items():
        try:
            columns[name] = pyarrow.array(values)
        except (pyarrow.ArrowException, UnicodeError, OverflowError) as error:
            raise UserError(_unfit(table, name, values, str(error)), "the data") from error
    return datasets.Dataset(pyarrow.table(columns))


def _unfit(table: Table, name: str, values: list[Any], why: str) -> Problem:
    """The first row that does not go with those before it, such as a list among numbers or half a surrogate pair."""
    low, high = 0, len(values)  # values[:low] fit together, values[:high] don't
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pyarrow.array(values[:middle])
            low = middle
        except (pyarrow.ArrowException, UnicodeError, OverflowError):
            high = middle
    return Problem(table.ids[low], f"{name} does not go with the rows before it: {why.splitlines()[0]}")
