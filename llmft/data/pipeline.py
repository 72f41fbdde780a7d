"""From the section `dataset` to the splits of a run: read, given roles, checked, split. No model is needed for it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import datasets

from llmft.data import checks, clean
from llmft.data.arrow import rows_sha256, to_dataset
from llmft.data.files import digest
from llmft.data.read import files_of, read_split
from llmft.data.roles import assign, index_note, list_notes, unread
from llmft.data.source import Table, listed
from llmft.data.splitting import SPLITS, TIME, TIME_TEXT, sample_rows, take_splits, time_note, with_group, with_times
from llmft.data.stream import Stream
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError

COLUMNS_ARE_CHOSEN = ("csv", "json", "parquet", "excel", "sqlite", "arrow", "hub")


class HasRows(Protocol):
    """What the data need to know of a task."""

    @property
    def columns(self) -> dict[str, Column]:
        """The roles that its data must fill."""

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Made-up rows by role."""


@dataclass
class Data:
    """The rows of a run: per split a Dataset with a column a role, and `id`, `FILE:LINE` or `FILE:ROW`."""

    splits: dict[str, datasets.Dataset]
    notes: list[str] = field(default_factory=list)
    """What the user should know about the rows, a line each."""
    digests: dict[str, str] = field(default_factory=dict)
    """sha256 of each file that was read."""
    stream: Stream | None = None
    """All rows of `train` where they are streamed; its Dataset then holds a sample of them, each label among it."""
    rows_sha256: dict[str, str] = field(default_factory=dict)
    """By split, the digest of its rows, of a stream all of them; equal for the same rows in files of another kind."""

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
    clean.libraries(config)
    clean.check_roles(config.clean, task.columns)
    tables, digests, stream, notes = _read(config, task)
    for name, table in tables.items():
        notes += clean.notes_of(name, table.left_out)
        tables[name], mended = clean.mend(table, task.columns, config.clean)
        notes += clean.notes_of(name, mended)
    known: set[str] = set()
    if stream:
        survey = stream.survey({key for table in tables.values() for key in checks.input_keys(table, task.columns)})
        tables = {"train": survey.sample, **tables}
        notes += survey.notes
        known = survey.known
    problems: list[Problem] = []
    for name, table in tables.items():
        whole = checks.whole_rows(table, task.columns, name, config.drop_empty, config.drop_unlabeled)
        tables[name], faults, dropped = whole
        problems += [problem for kind in faults for problem in listed(kind)]
        notes += clean.notes_of(name, dropped)
    if problems:
        raise UserError(
            [*problems, *(checks.advice(problems, task.columns) if any(map(len, tables.values())) else [])], "the data"
        )
    tables, lines = clean.left_for_training(tables, task.columns, config.clean)
    notes += lines
    problems += [Problem(f"dataset.{name}", "has 0 rows") for name, table in tables.items() if not len(table)]
    if problems:
        raise UserError(problems, "the data")
    drawn = False
    if "train" in tables and any(spec.kind == "features" for spec in task.columns.values()):
        inputs = checks.input_keys(tables["train"], task.columns)
        if drawn := checks.are_draws(inputs, task.columns):
            what = f"{len(inputs):,} rows with {len(set(inputs)):,} different inputs"
            notes.append(f"train: {what}: equal rows count as draws, not as copies, so that splits may share inputs")
    tables = take_splits(tables, config, task.columns, drawn)
    if config.split.by:
        timed = {name: table for name, table in tables.items() if TIME in table.columns}
        notes.append(time_note(timed, config.split.by))
        tables = {name: table.without((TIME, TIME_TEXT)) for name, table in tables.items()}
    if config.max_rows:
        tables = {name: sample_rows(table, config.max_rows, config.split) for name, table in tables.items()}
        stream = None  # so few rows are held in memory
    if problems := checks.roles_differ(tables, task.columns):
        raise UserError(problems, "the data")
    keys = {name: checks.input_keys(table, task.columns) for name, table in tables.items()}
    sizes = {name: len(table) for name, table in tables.items()}
    if stream:
        keys["train"], sizes["train"] = list(known), len(stream)
        if len(stream) > len(tables["train"]):
            shown = f"{len(tables['train']):,} of its {len(stream):,} rows"
            notes.append(f"train: scales and vocabularies are learnt from {shown}, drawn at random")
    elif "train" in keys and not drawn:
        notes += checks.repeats(keys["train"], tables["train"].columns.get("label"))
    ids = {name: table.ids for name, table in tables.items() if not (stream and name == "train")}
    found_notes, problems = checks.overlaps({} if drawn else keys, sizes, config.max_overlap, ids)
    if problems:
        raise UserError(problems, "the data")
    wanted = {name: to_dataset(table) for name, table in tables.items() if name in splits}
    sha256 = {name: rows_sha256(rows, task.columns) for name, rows in wanted.items()}
    if stream and "train" in sha256:
        sha256["train"] = survey.sha256
    return Data(wanted, notes + found_notes, digests, stream if "train" in splits else None, sha256)


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
                files += files_of(config, name, source)
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(problems, "the data")
    return {str(file): digest(file) for file in files}


def _read(config: DatasetConfig, task: HasRows) -> tuple[dict[str, Table], dict[str, str], Stream | None, list[str]]:
    """The rows of each split with their roles, but those of a streamed one; digests of the files; the stream; notes."""
    tables: dict[str, Table] = {}
    stream: Stream | None = None
    owners: dict[str, tuple[str, Path]] = {}
    problems: list[Problem] = []
    digests: dict[str, str] = {}
    notes: list[str] = []
    if config.format == "synthetic":
        return synthetic(config, task), digests, stream, notes
    for name in SPLITS:
        source = getattr(config, name)
        if not source:
            continue
        try:
            if name == "train" and config.streaming:
                stream = Stream(config, task.columns)
                files = stream.files
                notes += unread_note(name, stream.kinds, config, task.columns)
            else:
                table, files = read_split(config, name, source)
                own, roles = with_group(config, task.columns, table, name)
                tables[name] = assign(table, own, roles, name) if len(table) else table
                if name == "train" and config.split.by and len(table):
                    tables[name] = with_times(tables[name], table, config.split.by)
                notes += unread_note(name, table.columns, own, roles)
                if name == "train" or not config.train:
                    notes += index_note(name, table, own, roles)
                    notes += list_notes(name, tables[name], roles, config.format)
        except UserError as error:
            problems += error.problems
            continue
        digests |= {str(file): digest(file) for file in files}
        problems += same_bytes(name, files, digests, owners)
    empty = [name for name, table in tables.items() if not len(table)]
    if stream is not None and not len(stream):
        empty.append("train")
    problems += [Problem(f"dataset.{name}", "has 0 rows") for name in empty]
    if problems:
        raise UserError(problems, "the data")
    return tables, digests, stream, notes


def unread_note(split: str, columns: Iterable[str], config: DatasetConfig, roles: dict[str, Column]) -> list[str]:
    """A note on columns that no one reads, in files whose columns their writer chose."""
    names = unread(columns, config, roles) if config.format in COLUMNS_ARE_CHOSEN else []
    names = [name for name in names if name != config.split.by]
    return [f"{split}: columns that are not read: {checks.few(names)}"] if names else []


def same_bytes(
    split: str, files: list[Path], digests: dict[str, str], owners: dict[str, tuple[str, Path]]
) -> list[Problem]:
    """A problem for each file that another split has, too.

    Args:
        owners: the split and the file that each digest was first seen in; grows by these files.
    """
    problems = []
    for file in files:
        owner, other = owners.setdefault(digests[str(file)], (split, file))
        if owner != split:
            problems.append(Problem(f"dataset.{split}", f"{file} holds the same bytes as {other} of {owner}"))
    return problems


def synthetic(config: DatasetConfig, task: HasRows) -> dict[str, Table]:
    """Made-up rows of each split."""
    rows = {"train": config.max_rows or 256, "validation": 16, "test": 16}
    return {
        name: Table(
            task.synthetic_rows(count, seed=config.split.seed + index),
            [f"synthetic-{name}:{i}" for i in range(1, count + 1)],
        )
        for index, (name, count) in enumerate(rows.items())
    }
