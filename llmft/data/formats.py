"""The formats of files, one reader each: a line here, the reader in a file of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmft.data.aligned_files import AlignedFiles
from llmft.data.conll import ConllFile
from llmft.data.parquet import ParquetFile
from llmft.data.plain_text import PlainText
from llmft.data.po_files import PoFile
from llmft.data.python_files import PythonFile
from llmft.data.semeval import SemevalFile
from llmft.data.source import Source
from llmft.data.squad import SquadFile
from llmft.data.text_files import open_csv, open_json
from llmft.schema.dataset import DatasetConfig


@dataclass(frozen=True)
class Format:
    """A format by what its files end in, and what opens one of them."""

    suffixes: tuple[str, ...]
    """In a folder, the files of these endings are taken."""
    open: Callable[[Path, str, DatasetConfig], Source] | None = None
    """File, its name in row ids, and how it is to be read -> its rows. Raises UserError."""
    join: Callable[[list[Path], list[str], DatasetConfig], Source] | None = None
    """The same for all files of a split together, where they are read side by side."""


FORMATS: dict[str, Format] = {
    "csv": Format((".csv", ".tsv", ".tab"), lambda file, name, how: open_csv(file, name, how.encoding, how.header)),
    "json": Format((".jsonl", ".json", ".ndjson"), lambda file, name, how: open_json(file, name, how.encoding)),
    "parquet": Format((".parquet",), lambda file, name, _: ParquetFile(file, name)),
    "conll": Format(
        (".conll", ".bio", ".iob", ".iob2", ".bioes"), lambda file, name, how: ConllFile(file, name, how.encoding)
    ),
    "squad": Format((".json",), lambda file, name, how: SquadFile(file, name, how.encoding)),
    "semeval": Format((".txt",), lambda file, name, how: SemevalFile(file, name, how.encoding)),
    "po": Format((".po",), lambda file, name, how: PoFile(file, name, how.encoding)),
    "parallel": Format((), join=lambda files, names, how: AlignedFiles(files, names, how.encoding)),
    "text": Format(
        (".txt", ".md", ".rst", ".text", ".txt.gz", ".md.gz"),
        lambda file, name, how: PlainText(file, name, how.encoding, how.unit),
    ),
    "pydocs": Format((".py",), lambda file, name, _: PythonFile(file, name)),
}
