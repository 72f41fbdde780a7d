"""From what the section `dataset` names to a Table a split, or to its files, chunk by chunk."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmft.data.files import expand, resolve
from llmft.data.formats import FORMATS
from llmft.data.hub import read_hub
from llmft.data.kinds import mismatch
from llmft.data.python_files import HOME, of_the_library
from llmft.data.source import Mark, Source
from llmft.data.table import Table, listed
from llmft.schema.dataset import DatasetConfig, Files
from llmft.schema.problem import Problem, UserError, plural

SKLEARN = ("breast_cancer", "diabetes", "digits", "iris", "wine")


def read_split(dataset: DatasetConfig, split: str, source: Files) -> tuple[Table, list[Path]]:
    """All rows of one split, and the files that they came from.

    Raises:
        UserError: naming the file and line of what can't be read.
    """
    if dataset.format == "hub":
        return read_hub(dataset, split, source), []
    if dataset.format == "sklearn":
        return _read_sklearn(str(source), split), []
    files = files_of(dataset, split, source)
    table = Table()
    for _, _, chunk in chunks(dataset, files):
        table.extend(chunk)
    return table, files


def files_of(dataset: DatasetConfig, split: str, source: Files) -> list[Path]:
    """The files that `source` means; none for a format that does not lie in files.

    Raises:
        UserError: naming each entry that means no file.
    """
    if dataset.format not in FORMATS:
        return []
    folder = resolve(dataset.path, "dataset.path") if dataset.path else Path()
    key = f"dataset.{split}"
    own = dataset.format == "pydocs" and not dataset.path
    found = FORMATS[dataset.format]
    files = expand(source, HOME if own else folder, found.suffixes, key, found.inside)
    if dataset.format == "parallel" and len(files) != 2:
        what = f"names {plural(len(files), 'files')}, and dataset=parallel reads two, side by side"
        hint = f"Write the file of the sources, then that of the targets: {key}=[{split}.en,{split}.zh]."
        raise UserError(Problem(key, what, hint=hint), "the data")
    return of_the_library(files) if own else files


def chunks(dataset: DatasetConfig, files: list[Path]) -> Iterator[tuple[Source, Mark, Table]]:
    """All rows of some files in their order, a chunk at a time, each with where it lies.

    Raises:
        UserError: after the last chunk, with what can't be read in any of the files.
    """
    problems: list[Problem] = []
    found = FORMATS[dataset.format]
    more = [getattr(dataset, key) for key in found.keys]
    names = _names(files)
    for file, name in [(files, names)] if found.together else zip(files, names, strict=True):
        try:
            refuse_others(dataset.format, file, name)
            opened = found.open(file, name, dataset.encoding, *more)
            for mark, table in opened.chunks():
                yield opened, mark, table
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems, "the data")


def refuse_others(format: str, files: Path | list[Path], names: str | list[str]) -> None:
    """Raise UserError for files that are something else than the format says, such as a workbook or a picture."""
    if format == "pydocs":  # thousands of files, by their ending
        return
    files, names = [files] if isinstance(files, Path) else files, [names] if isinstance(names, str) else names
    if problems := [p for file, name in zip(files, names, strict=True) if (p := mismatch(file, name, format))]:
        raise UserError(listed(problems), "the data")


def _names(files: list[Path]) -> list[str]:
    """The files as row ids name them: the last name of each, with as many folders as tell it from the others."""
    found = [""] * len(files)
    left, depth = list(range(len(files))), 1
    while left:
        ends = Counter(files[number].parts[-depth:] for number in left)
        again = []
        for number in left:
            parts = files[number].parts
            if ends[parts[-depth:]] == 1 or depth >= len(parts):
                found[number] = "/".join(parts[-depth:])
            else:
                again.append(number)
        left, depth = again, depth + 1
    return found


def _read_sklearn(dataset: str, split: str) -> Table:
    """One of the data sets that scikit-learn carries; classes by their names."""
    import sklearn.datasets

    if dataset not in SKLEARN:
        hint = f"They are {', '.join(SKLEARN)}."
        raise UserError(Problem(f"dataset.{split}", f"scikit-learn carries no {dataset}", hint=hint))
    bunch = getattr(sklearn.datasets, f"load_{dataset}")()
    columns = {name: bunch.data[:, i].tolist() for i, name in enumerate(map(str, bunch.feature_names))}
    names = bunch.get("target_names")  # classes; the targets of others are numbers
    columns["target"] = bunch.target.tolist() if names is None else [str(names[number]) for number in bunch.target]
    return _numbered(columns, dataset)


def _numbered(columns: dict[str, list[Any]], name: str) -> Table:
    length = len(next(iter(columns.values()), []))
    return Table(columns, [f"{name}:{number}" for number in range(1, length + 1)])
