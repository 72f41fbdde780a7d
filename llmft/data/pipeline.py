"""From the config section `dataset` to the splits of a run: read, map to roles, clean, check, split. Needs no model."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import datasets

from llmft.data import checks, clean
from llmft.data.arrow import rows_sha256, to_dataset
from llmft.data.cell_values import joined_name
from llmft.data.files import digest
from llmft.data.formats import FORMATS
from llmft.data.image_checks import check_images
from llmft.data.images import Cell, content_digest
from llmft.data.read import beside, chunks, files_of, read_split
from llmft.data.roles import assign, index_note, list_notes, locate_images, unread
from llmft.data.source import Table, listed
from llmft.data.splitting import (
    SPLITS,
    TIME,
    TIME_TEXT,
    sample_rows,
    sample_shots,
    take_splits,
    time_note,
    with_group,
    with_times,
)
from llmft.data.stream import Stream
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError

# Formats whose column names the author of the file chose: a column that is not read may be a mistake there.
COLUMNS_ARE_CHOSEN = ("csv", "json", "parquet", "excel", "sqlite", "arrow", "hub")


class HasRows(Protocol):
    """What this module needs of a task."""

    @property
    def columns(self) -> dict[str, Column]:
        """The roles of its columns."""

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Made-up rows: values by role."""


@runtime_checkable
class ArrangesRows(Protocol):
    """A task whose rows are made of several rows of a file, such as all interactions of a user, and which splits them
    by itself."""

    @property
    def file_columns(self) -> dict[str, Column]:
        """The roles of the columns in files; `columns` has those of the rows that are made."""

    def arrange(self, tables: dict[str, Table], config: DatasetConfig) -> tuple[dict[str, Table], list[str]]:
        """The rows of all splits, those without a table taken from train, and notes."""

    def as_history(self, table: Table) -> Table:
        """Rows that are scored as rows to train on."""


@dataclass
class Data:
    """The rows of a run: for each split a Dataset with a column for each role, and `id`, `FILE:LINE` or `FILE:ROW`."""

    splits: dict[str, datasets.Dataset]
    notes: list[str] = field(default_factory=list)
    """What the user should know about the rows, a line each."""
    digests: dict[str, str] = field(default_factory=dict)
    """sha256 of each file that was read, by path."""
    stream: Stream | None = None
    """All rows of train, if they are streamed. Its Dataset is then a sample in which every label occurs."""
    rows_sha256: dict[str, str] = field(default_factory=dict)
    """sha256 of the rows of each split, of a stream all of them. The same rows in another file format have the same."""

    def __getitem__(self, name: str) -> datasets.Dataset:
        return self.splits[name]


def load(config: DatasetConfig, task: HasRows, splits: tuple[str, ...] = SPLITS) -> Data:
    """The checked splits of a config.

    Args:
        splits: those to return. Train is read anyway if it is configured: the others may be shares of it, or overlap
            with it.

    Raises:
        UserError: with every problem of the data, by file and row.
    """
    # Missing packages and impossible requests first: reading may take minutes.
    clean.libraries(config)
    arranges = isinstance(task, ArrangesRows) and config.format != "synthetic"
    columns = task.file_columns if isinstance(task, ArrangesRows) and arranges else task.columns
    clean.check_roles(config.clean, columns)
    tables, digests, stream, notes = _read(config, task, columns)
    for name, table in tables.items():
        notes += clean.change_notes(name, table.left_out)
        tables[name], mended = clean.repair(table, columns, config.clean)
        notes += clean.change_notes(name, mended)
    known: set[str] = set()
    if stream:
        # Which inputs the small splits share with the stream can only be found by reading all of it.
        survey = stream.survey({key for table in tables.values() for key in checks.input_keys(table, columns)})
        tables = {"train": survey.sample, **tables}
        notes += survey.notes
        known = survey.known
    problems: list[Problem] = []
    for name, table in tables.items():
        whole = checks.complete_rows(table, columns, name, config.drop_empty, config.drop_unlabeled)
        tables[name], faults, dropped = whole
        problems += [problem for kind in faults for problem in listed(kind)]
        notes += clean.change_notes(name, dropped)
    # Of train only where it is wanted, or lends its rows to a split: `eval` need not decode all images of training.
    lends = any(name not in tables for name in splits)
    looked = {name: table for name, table in tables.items() if name in splits or (name == "train" and lends)}
    looked, broken, lines = check_images(looked, columns, config.drop_broken)
    tables, problems, notes = tables | looked, [*problems, *broken], [*notes, *lines]
    if problems:
        raise UserError(
            [*problems, *(checks.advice(problems, columns) if any(map(len, tables.values())) else [])], "the data"
        )
    # Before splits are taken: a duplicate must not end up in both train and test.
    tables, lines = clean.clean_train(tables, columns, config.clean)
    notes += lines
    problems += [Problem(f"dataset.{name}", "has 0 rows") for name, table in tables.items() if not len(table)]
    if problems:
        raise UserError(problems, "the data")
    if isinstance(task, ArrangesRows) and arranges:
        tables, lines = task.arrange(tables, config)
        return _whole(tables, config, task, splits, notes + lines, digests)
    drawn = False
    if "train" in tables and any(spec.kind == "features" for spec in task.columns.values()):
        inputs = checks.input_keys(tables["train"], task.columns)
        if drawn := checks.are_draws(inputs, task.columns):
            what = f"{len(inputs):,} rows with {len(set(inputs)):,} different inputs"
            notes.append(f"train: {what}: equal rows are separate observations, so splits may share inputs")
    own = set(tables)
    tables = take_splits(tables, config, task.columns, drawn)
    if config.split.by:
        timed = {name: table for name, table in tables.items() if TIME in table.columns}
        notes.append(time_note(timed, config.split.by))
        tables = {name: table.without((TIME, TIME_TEXT)) for name, table in tables.items()}
    if config.shots and "train" in tables:
        count = len(tables["train"])
        tables["train"] = sample_shots(tables["train"], config.shots, config.split.seed)
        if "train" in splits:
            notes.append(f"train: {len(tables['train']):,} of {count:,} rows, {config.shots} of each label")
    if config.max_rows:
        tables = {name: sample_rows(table, config.max_rows, config.split) for name, table in tables.items()}
        stream = None  # max_rows fit into memory
    if problems := checks.roles_differ(tables, task.columns):
        raise UserError(problems, "the data")
    keys = {name: checks.input_keys(table, task.columns) for name, table in tables.items()}
    sizes = {name: len(table) for name, table in tables.items()}
    if stream:
        # The survey has found which keys of the other splits are in the stream: only these are compared below.
        keys["train"], sizes["train"] = list(known), len(stream)
        if len(stream) > len(tables["train"]):
            shown = f"{len(tables['train']):,} of its {len(stream):,} rows"
            notes.append(f"train: scales and vocabularies are fitted to {shown}, drawn at random")
    elif "train" in keys and not drawn:
        notes += checks.repeats(keys["train"], tables["train"].columns.get("label"))
    ids = {name: table.ids for name, table in tables.items() if not (stream and name == "train")}
    taken = keys.keys() - own
    found_notes, problems = checks.overlaps({} if drawn else keys, sizes, config.max_overlap, ids, taken)
    if problems:
        raise UserError(problems, "the data")
    wanted = {name: to_dataset(table) for name, table in tables.items() if name in splits}
    hashes = {name: rows_sha256(rows, task.columns) for name, rows in wanted.items()}
    if stream and "train" in hashes:
        hashes["train"] = survey.sha256
    return Data(wanted, notes + found_notes, digests, stream if "train" in splits else None, hashes)


def _whole(
    tables: dict[str, Table],
    config: DatasetConfig,
    task: HasRows,
    splits: tuple[str, ...],
    notes: list[str],
    digests: dict[str, str],
) -> Data:
    """Rows that a task has arranged. What they share is for the task to tell: a user is in all splits."""
    if config.max_rows:
        tables = {name: sample_rows(table, config.max_rows, config.split) for name, table in tables.items()}
    wanted = {name: to_dataset(table) for name, table in tables.items() if name in splits}
    hashes = {name: rows_sha256(rows, task.columns) for name, rows in wanted.items()}
    return Data(wanted, notes, digests, None, hashes)


def source_digests(config: DatasetConfig, roles: dict[str, Column] | None = None) -> dict[str, str]:
    """sha256 of each file that `load` would read, by path; empty for data that are not in files.

    Args:
        roles: of a task on images. The images that files name, such as those of a CSV, are then among the files.

    Raises:
        UserError: naming the files that do not exist, or what cannot be read of files that name images.
    """
    files: list[Path] = []
    problems: list[Problem] = []
    cells: list[Cell] = []
    images = {joined_name(config, role): spec for role, spec in (roles or {}).items() if spec.kind == "image"}
    for name in SPLITS:
        if source := getattr(config, name):
            try:
                own = files_of(config, name, source)
                files += [*own, *beside(config, own)]
                if images and own and not FORMATS[config.format].by_folder:
                    for opened, _, table in chunks(config, own, named=True):
                        cells += image_cells(locate_images(table, opened.file.parent, images), images)
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(problems, "the data")
    return file_digests(config, files) | image_digests(cells)


def image_cells(table: Table, roles: dict[str, Column]) -> list[Cell]:
    """The images of some rows that are files of their own."""
    found = [table.columns.get(role, []) for role, spec in roles.items() if spec.kind == "image"]
    return [cell for column in found for cell in column if isinstance(cell, dict) and cell.get("bytes") is None]


def image_digests(cells: Iterable[Cell]) -> dict[str, str]:
    """sha256 of the images in each folder: of the names and contents of those that rows name."""
    folders: dict[str, set[str]] = {}
    for cell in cells:
        path = Path(cell["path"])
        folders.setdefault(str(path.parent), set()).add(f"{path.name} {content_digest(cell)}\n")
    return {name: sha256("".join(sorted(lines)).encode()).hexdigest() for name, lines in folders.items()}


def file_digests(config: DatasetConfig, files: list[Path]) -> dict[str, str]:
    """sha256 of each file by path; of images in folders of classes, of all below the folder of folders by its path."""
    if config.format not in FORMATS or not FORMATS[config.format].by_folder:
        return {str(file): digest(file) for file in files}
    found: dict[str, Any] = {}
    for file in files:
        root = file.parent.parent
        line = f"{file.relative_to(root).as_posix()} {digest(file)}\n"
        found.setdefault(str(root), sha256()).update(line.encode())
    return {root: whole.hexdigest() for root, whole in found.items()}


def _read(
    config: DatasetConfig, task: HasRows, columns: dict[str, Column]
) -> tuple[dict[str, Table], dict[str, str], Stream | None, list[str]]:
    """The rows of each split in memory, by role; the digests of all files; the stream of train, if any; notes."""
    tables: dict[str, Table] = {}
    stream: Stream | None = None
    of_splits: dict[str, list[Path]] = {}
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
                stream = Stream(config, columns)
                files = stream.files
                notes += unread_note(name, stream.kinds, config, columns)
            else:
                table, files = read_split(config, name, source, columns)
                own, roles = with_group(config, columns, table, name)
                tables[name] = assign(table, own, roles, name) if len(table) else table
                if name == "train" and config.split.by and len(table) and columns == task.columns:
                    tables[name] = with_times(tables[name], table, config.split.by)
                notes += unread_note(name, table.columns, own, roles)
                # The other splits have the columns of train: its notes would come three times.
                if name == "train" or not config.train:
                    notes += index_note(name, table, own, roles)
                    notes += list_notes(name, tables[name], roles, config.format)
        except UserError as error:
            problems += error.problems  # continue: all problems of all splits are reported at once
            continue
        of_splits[name] = files
    # Of all splits together: patterns may take files of one folder for several splits.
    digests = file_digests(config, [file for own in of_splits.values() for file in [*own, *beside(config, own)]])
    if config.format not in FORMATS or not FORMATS[config.format].one_row:
        problems += same_bytes(of_splits, digests)
    if config.format in FORMATS and not FORMATS[config.format].by_folder:
        digests |= image_digests(cell for table in tables.values() for cell in image_cells(table, columns))
    empty = [name for name, table in tables.items() if not len(table)]
    if stream is not None and not len(stream):
        empty.append("train")
    problems += [Problem(f"dataset.{name}", "has 0 rows") for name in empty]
    if problems:
        raise UserError(problems, "the data")
    return tables, digests, stream, notes


def unread_note(split: str, columns: Iterable[str], config: DatasetConfig, roles: dict[str, Column]) -> list[str]:
    """A note on columns that play no role, in formats whose column names the author chose."""
    names = unread(columns, config, roles) if config.format in COLUMNS_ARE_CHOSEN else []
    names = [name for name in names if name != config.split.by]
    return [f"{split}: columns that are not read: {checks.few(names)}"] if names else []


def same_bytes(files: dict[str, list[Path]], digests: dict[str, str]) -> list[Problem]:
    """A problem for each file with the same content as one of an earlier split.

    Args:
        files: by split.
        digests: sha256 by path.
    """
    problems = []
    owners: dict[str, tuple[str, Path]] = {}
    for split, own in files.items():
        for file in own:
            owner, other = owners.setdefault(digests[str(file)], (split, file))
            if owner != split:
                problems.append(Problem(f"dataset.{split}", f"{file} has the same bytes as {other} of {owner}"))
    return problems


def synthetic(config: DatasetConfig, task: HasRows) -> dict[str, Table]:
    """Made-up rows of each split, for `smoke=true` and first tries."""
    # 16 rows are one batch of evaluation. Each split has a seed of its own, so that none repeats another.
    rows = {"train": config.max_rows or 256, "validation": 16, "test": 16}
    tables = {
        name: Table(
            task.synthetic_rows(count, seed=config.split.seed + index),
            [f"synthetic-{name}:{i}" for i in range(1, count + 1)],
        )
        for index, (name, count) in enumerate(rows.items())
    }
    return tables | {"train": task.as_history(tables["train"])} if isinstance(task, ArrangesRows) else tables
