"""The formats of files: a line for each, with its endings and its reader."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmft.data.annotated import SemevalFile, SquadFile, open_conll
from llmft.data.binary_tables import ArrowFile, ExcelFile, ParquetFile, SqliteFile, files_of_saved
from llmft.data.csv_files import open_csv
from llmft.data.documents import TEXTS, ClassFolders, PlainText, PythonFile, files_by_class
from llmft.data.json_files import open_json
from llmft.data.source import Source
from llmft.data.translation_files import AlignedFiles, PoFile


@dataclass(frozen=True)
class Format:
    """A format by what its files end in, and what opens one of them."""

    suffixes: tuple[str, ...]
    """In a folder, the files of these endings are taken."""
    open: Callable[..., Source]
    """File, its name in row ids, `dataset.encoding`, and what `keys` say -> its rows. Raises UserError."""
    keys: tuple[str, ...] = ()
    """Further keys of the section that it is opened by."""
    together: bool = False
    """Whether all files of a split are opened together, as lists of files and names."""
    inside: Callable[[Path, tuple[str, ...]], list[Path]] | None = None
    """The files that are taken of a folder, where these are not those of its `suffixes`, packed ones included."""


FORMATS: dict[str, Format] = {
    "csv": Format((".csv", ".tsv", ".tab"), open_csv, keys=("header", "separator")),
    "json": Format((".jsonl", ".json", ".ndjson"), open_json, keys=("field",)),
    "parquet": Format((".parquet",), lambda file, name, _: ParquetFile(file, name)),
    "excel": Format((".xlsx", ".xlsm"), lambda file, name, _, sheet: ExcelFile(file, name, sheet), keys=("sheet",)),
    "sqlite": Format(
        (".sqlite", ".sqlite3", ".db"), lambda file, name, _, query: SqliteFile(file, name, query), keys=("query",)
    ),
    "arrow": Format((".arrow",), lambda file, name, _: ArrowFile(file, name), inside=files_of_saved),
    "folder": Format(TEXTS, ClassFolders, together=True, inside=files_by_class),
    "conll": Format((".conll", ".bio", ".iob", ".iob2", ".bioes"), open_conll),
    "squad": Format((".json",), SquadFile),
    "semeval": Format((".txt",), SemevalFile),
    "po": Format((".po",), PoFile),
    "parallel": Format((), AlignedFiles, together=True),
    "text": Format((".txt", ".md", ".rst", ".text"), PlainText, keys=("unit",)),
    "pydocs": Format((".py",), lambda file, name, _: PythonFile(file, name)),
}
