"""From the section `dataset` to the splits of a run: read, given roles, checked, split. No model is needed for it."""

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import datasets

from llmft.data import checks, clean
from llmft.data.arrow import to_dataset
from llmft.data.files import digest
from llmft.data.folds import held_out
from llmft.data.groups import GROUP, together, with_group
from llmft.data.read import files_of, read_split
from llmft.data.roles import assign, index_note, list_notes, unread
from llmft.data.rows_digest import rows_sha256
from llmft.data.split import split
from llmft.data.strata import strata
from llmft.data.stream import Stream
from llmft.data.table import Table, listed
from llmft.data.times import SAID, TIME, by_time, note_of, with_times
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig, SplitConfig
from llmft.schema.problem import Problem, UserError

COLUMNS_ARE_CHOSEN = ("csv", "json", "parquet", "excel", "sqlite", "arrow", "hub")
SPLITS = ("train", "validation", "test")
NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")


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
    tables = _shared_out(tables, config, task.columns, drawn)
    if config.split.by:
        notes.append(note_of({name: table for name, table in tables.items() if TIME in table.columns}, config.split.by))
        tables = {name: table.without((TIME, SAID)) for name, table in tables.items()}
    if config.max_rows:
        tables = {name: _sample(table, config.max_rows, config.split) for name, table in tables.items()}
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


def _units(train: Table, roles: dict[str, Column], drawn: bool) -> list[str]:
    """A name for each row; rows of the same name are never parted."""
    keys = list(map(str, range(len(train)))) if drawn else checks.input_keys(train, roles)
    return together(keys, train.columns.get(GROUP))


def _shared_out(
    tables: dict[str, Table], config: DatasetConfig, roles: dict[str, Column], drawn: bool
) -> dict[str, Table]:
    """Take what has no file of its own from train: the fold that is held out, and shares of the rest.

    Args:
        drawn: rows of equal inputs may be parted.
    """
    if config.folds and config.fold is not None and "train" in tables:
        tables = _folded(tables, config, roles, config.folds, config.fold, drawn)
    shares = {
        name: getattr(config.split, name) for name in SPLITS[1:] if name not in tables and getattr(config.split, name)
    }
    if "train" not in tables or not shares:
        return tables
    train = tables["train"]
    labels = strata(train.columns.get("label")) if config.split.stratify else None
    by = config.split.by
    units = train.ids if by else _units(train, roles, drawn)
    parts = by_time(train.columns[TIME], shares) if by else split(units, labels, shares, config.split.seed)
    kinds = len(set(labels or ()))
    # As many labels as rows: numbers, or names. No share can have its part of each.
    numbers = labels is not None and all(NUMBER.fullmatch(str(label)) for label in labels)
    many = numbers and 2 * kinds > len(train) > 2
    hint = f"It has {kinds} labels. Are they numbers? Write task.problem=regression." if many else ""
    if not hint and len(set(units)) < len(train):
        what = "groups and inputs" if GROUP in train.columns else "inputs"
        hint = f"It has {len(set(units)):,} different {what}; equal ones stay in one split. Name files for the splits."
    empty = [
        Problem(f"dataset.split.{name}", f"leaves {name} without rows: train has {len(train)}", hint=hint)
        for name, rows in parts.items()
        if not rows
    ]
    if empty:
        raise UserError(empty, "the data")
    found = {**tables, **{name: train.take(rows) for name, rows in parts.items()}}
    return {name: found[name] for name in SPLITS if name in found}


def _folded(
    tables: dict[str, Table], config: DatasetConfig, roles: dict[str, Column], folds: int, fold: int, drawn: bool
) -> dict[str, Table]:
    """One fold of train as test, the others as train."""
    train = tables["train"]
    labels = strata(train.columns.get("label")) if config.split.stratify else None
    units = _units(train, roles, drawn)
    held = held_out(units, labels, folds, fold, config.split.seed, grouped=GROUP in train.columns)
    rest = sorted(set(range(len(train))) - set(held))
    return {**tables, "train": train.take(rest), "test": train.take(held)}


def _sample(table: Table, rows: int, how: SplitConfig) -> Table:
    """`rows` rows at random; if stratified, one of each label first, then each label's share."""
    if len(table) <= rows:
        return table
    order = random.Random(how.seed).sample(range(len(table)), len(table))
    labels = strata(table.columns.get("label")) if how.stratify else None
    if labels:
        counts, seen = Counter(labels), Counter[Any]()
        place: dict[int, tuple[bool, float]] = {}
        for row in order:
            rank = seen[labels[row]]
            place[row] = (rank > 0, (rank + 0.5) / counts[labels[row]])
            seen[labels[row]] += 1
        order.sort(key=place.__getitem__)
    return table.take(sorted(order[:rows]))
