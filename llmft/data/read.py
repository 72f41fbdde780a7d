"""Reads what the config section `dataset` names into Tables: files chunk by chunk, the hub, scikit-learn."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from llmft.data.binary_tables import class_names
from llmft.data.cell_values import joined_name
from llmft.data.csv_files import open_csv
from llmft.data.documents import HOME, of_the_library
from llmft.data.encodings import lines_of, open_text, strip_line_end
from llmft.data.files import expand, mismatch, resolve
from llmft.data.formats import FORMATS
from llmft.data.json_files import open_json
from llmft.data.roles import locate_images
from llmft.data.source import Mark, NamesImages, Source, Table, listed
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig, Files
from llmft.schema.problem import Problem, UserError, plural

SKLEARN = ("breast_cancer", "diabetes", "digits", "iris", "wine")
URL = re.compile(r"hf://datasets/([^@]+)@([^/]+)/(.+)")
UNTYPED = ("csv", "json", "text")  # builders of `datasets` for files without types, which our own readers take over
# Options of a repository's builder that our readers have. With others, such as `skiprows`, `datasets` reads it.
SUPPORTED_OPTIONS = {
    "name",
    "version",
    "data_dir",
    "data_files",
    "description",
    "features",
    "sep",
    "delimiter",
    "names",
}
SUPPORTED_OPTIONS |= {"column_names", "encoding", "chunksize", "block_size", "use_threads"}
TYPES_GUESSED = "rows were read by the library datasets, which may change texts such as 007, NA, and dates"


def read_split(
    dataset: DatasetConfig, split: str, source: Files, roles: dict[str, Column] | None = None
) -> tuple[Table, list[Path]]:
    """All rows of a split, and the files that they are from; none for the hub and scikit-learn.

    Args:
        roles: those of the task, of which images are paths relative to the file that names them.

    Raises:
        UserError: with the file and line of everything that cannot be read.
    """
    if dataset.format == "hub":
        return read_hub(dataset, split, source), []
    if dataset.format == "sklearn":
        return _read_sklearn(str(source), split), []
    files = files_of(dataset, split, source)
    images = [joined_name(dataset, role) for role, spec in (roles or {}).items() if spec.kind == "image"]
    table = Table()
    for opened, _, chunk in chunks(dataset, files):
        table.extend(locate_images(chunk, opened.file.parent, images))
    return table, files


def files_of(dataset: DatasetConfig, split: str, source: Files) -> list[Path]:
    """The files of `source`: paths, folders, and patterns; none for a format that is not read from files.

    Raises:
        UserError: naming each entry that matches no file.
    """
    if dataset.format not in FORMATS:
        return []
    folder = resolve(dataset.path, "dataset.path") if dataset.path else Path()
    key = f"dataset.{split}"
    own = dataset.format == "pydocs" and not dataset.path  # the documentation of Python's own library
    file_format = FORMATS[dataset.format]
    files = expand(source, HOME if own else folder, file_format.suffixes, key, file_format.inside)
    if file_format.listed:
        files = list(dict.fromkeys(each for file in files for each in file_format.listed(file, key)))
    if dataset.format == "parallel" and len(files) != 2:
        what = f"must be two files for dataset=parallel, got {plural(len(files), 'files')}"
        hint = f"Write the file of the sources, then that of the targets: {key}=[{split}.en,{split}.zh]."
        raise UserError(Problem(key, what, hint=hint), "the data")
    return of_the_library(files) if own else files


def beside(dataset: DatasetConfig, files: list[Path]) -> list[Path]:
    """The files that are read with those of a split, which other splits may share, such as names of classes."""
    read = FORMATS[dataset.format].beside if dataset.format in FORMATS else None
    return read(files) if read else []


def chunks(dataset: DatasetConfig, files: list[Path], named: bool = False) -> Iterator[tuple[Source, Mark, Table]]:
    """All rows of some files in order, chunk by chunk, each with its source and its position there.

    Args:
        named: of sources that make a part of their rows, read what they name alone; see `NamesImages`.

    Raises:
        UserError: after the last chunk, with the problems of all files.
    """
    problems: list[Problem] = []
    file_format = FORMATS[dataset.format]
    more = [getattr(dataset, key) for key in file_format.keys]
    names = _names(files, depth=2 if file_format.by_folder else 1)
    # Formats such as a folder by class or two aligned files are read as one source, others file by file.
    for file, name in [(files, names)] if file_format.together else zip(files, names, strict=True):
        try:
            check_file_kinds(dataset.format, file, name)
            opened = file_format.open(file, name, dataset.encoding, *more)
            for mark, table in opened.named() if named and isinstance(opened, NamesImages) else opened.chunks():
                yield opened, mark, table
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems, "the data")


def check_file_kinds(format: str, files: Path | list[Path], names: str | list[str]) -> None:
    """Raise UserError for files of another kind than the format, such as a workbook or an image, by first bytes."""
    if format in ("pydocs", "images", "yolo", "masks"):  # thousands of files, which are selected by their ending
        return
    files, names = [files] if isinstance(files, Path) else files, [names] if isinstance(names, str) else names
    if problems := [p for file, name in zip(files, names, strict=True) if (p := mismatch(file, name, format))]:
        raise UserError(listed(problems), "the data")


def _names(files: list[Path], depth: int = 1) -> list[str]:
    """The files as row ids name them: at least `depth` parts of the path, with as many more as make it unique."""
    named = [""] * len(files)
    left = list(range(len(files)))
    while left:
        ends = Counter(files[number].parts[-depth:] for number in left)
        again = []
        for number in left:
            parts = files[number].parts
            if ends[parts[-depth:]] == 1 or depth >= len(parts):
                named[number] = "/".join(parts[-depth:])
            else:
                again.append(number)
        left, depth = again, depth + 1
    return named


def _read_sklearn(dataset: str, split: str) -> Table:
    """A data set that is shipped with scikit-learn, with names of classes."""
    import sklearn.datasets

    if dataset not in SKLEARN:
        what = f"must be one of {', '.join(SKLEARN)} for dataset=sklearn, got {dataset}"
        raise UserError(Problem(f"dataset.{split}", what))
    bunch = getattr(sklearn.datasets, f"load_{dataset}")()
    columns = {name: bunch.data[:, i].tolist() for i, name in enumerate(map(str, bunch.feature_names))}
    names = bunch.get("target_names")  # classes; the targets of others are numbers
    columns["target"] = bunch.target.tolist() if names is None else [str(names[number]) for number in bunch.target]
    return _numbered(columns, dataset)


def _numbered(columns: dict[str, list[Any]], name: str) -> Table:
    length = len(next(iter(columns.values()), []))
    return Table(columns, [f"{name}:{number}" for number in range(1, length + 1)])


def read_hub(dataset: DatasetConfig, split: str, source: Files) -> Table:
    """Splits of a data set on the hub, with names instead of class indices.

    CSV, JSON lines, and text files are read by our own readers: pandas, which `datasets` uses, turns `007` into 7 and
    `NA` into a missing value. Other files, and repositories with unusual reading options, are read by `datasets`.

    Raises:
        UserError: for a data set that cannot be read, with what to do without a network.
    """
    table = Table()
    for name in [source] if isinstance(source, str) else source:
        own, typed = _read_with_own_readers(dataset, name)
        table.extend(own if own is not None else _read_with_datasets(dataset, split, name, typed))
    return table


def _read_with_own_readers(dataset: DatasetConfig, name: str) -> tuple[Table | None, bool]:
    """The rows of a split by our own readers, or None if they cannot; and whether its files have types of their own."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(dataset.path, dataset.subset, revision=dataset.revision)
        kind = type(builder).__module__.rpartition(".")[2]
        files = {str(key): list(urls) for key, urls in (builder.config.data_files or {}).items()}.get(name)
        if kind not in UNTYPED or files is None or not _is_supported(builder.config):
            return None, kind not in UNTYPED
        places = [_download(url) for url in files]
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError):
        return None, False  # `datasets` tries next: it may have a copy in its cache, and explains what is wrong
    table = Table()
    for file, called in places:
        for part in _rows(kind, file, called, builder.config):
            table.extend(part)
    for column, feature in (builder.info.features or {}).items():
        if column in table.columns:
            table.columns[column] = class_names(table.columns[column], feature)
    return table, False


def _is_supported(config: Any) -> bool:
    """Whether a repository sets no reading option that only pandas has, such as `skiprows`."""
    defaults = {one.name: one.default if one.default is not MISSING else None for one in fields(config)}
    return all(getattr(config, key) == default for key, default in defaults.items() if key not in SUPPORTED_OPTIONS)


def _download(url: str) -> tuple[Path, str]:
    """The local path of a file of a repository, and its name for row ids."""
    from huggingface_hub import hf_hub_download

    if match := URL.fullmatch(url):
        repository, revision, file = match[1], unquote(match[2]), match[3]
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision)), file
    if "://" in url or not Path(url).is_file():
        raise ValueError(url)
    return Path(url), Path(url).name


def _rows(kind: str, file: Path, name: str, config: Any) -> Iterator[Table]:
    encoding = getattr(config, "encoding", None) or "utf-8"
    if kind == "text":
        with open_text(file, name, encoding) as stream:
            texts = [strip_line_end(line) for line in lines_of(stream, name, 1)]
        yield Table({"text": texts}, [f"{name}:{line}" for line in range(1, len(texts) + 1)])
        return
    if kind == "csv":
        delimiter = config.sep if config.sep != "," else None
        yield from (part for _, part in open_csv(file, name, encoding, config.names or (), delimiter).chunks())
    else:
        yield from (part for _, part in open_json(file, name, encoding).chunks())


def _read_with_datasets(dataset: DatasetConfig, split: str, name: str, typed: bool) -> Table:
    import datasets

    try:
        rows = datasets.load_dataset(dataset.path, dataset.subset, split=name, revision=dataset.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"{dataset.path} ({name}) cannot be read: {why}"
        hint = (
            "Where there is a network, run hf download --repo-type dataset "
            f"{dataset.path} --local-dir DIR; then write dataset.train=DIR."
        )
        raise UserError(Problem(f"dataset.{split}", what, hint=hint), "the data") from error
    for column, feature in rows.features.items():
        if isinstance(feature, datasets.Image):  # as bytes: decoded, all images would be in memory at once
            rows = rows.cast_column(column, datasets.Image(decode=False))
    columns = {column: class_names(list(rows[column][:]), feature) for column, feature in rows.features.items()}
    table = Table(columns, [f"{name}:{number}" for number in range(1, len(rows) + 1)])
    if not typed and len(rows):
        table.left_out[TYPES_GUESSED] += len(rows)
    return table
