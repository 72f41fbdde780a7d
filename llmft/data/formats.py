"""The formats of files, one reader each: a line here, the reader in a file of its own."""

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Format:
    """A format by what its files end in, and what opens one of them."""

    suffixes: tuple[str, ...]
    """In a folder, the files of these endings are taken."""
    open: Callable[..., Source]
    """File, its name in row ids, `dataset.encoding`, and what `keys` say -> its rows. Raises UserError."""
    keys: tuple[str, ...] = ()
    """Further keys of the section that it is opened by."""
    aligned: bool = False
    """Whether all files of a split are opened together, as lists of files and names, and read side by side."""


FORMATS: dict[str, Format] = {
    "csv": Format((".csv", ".tsv", ".tab"), open_csv, keys=("header", "separator")),
    "json": Format((".jsonl", ".json", ".ndjson"), open_json),
    "parquet": Format((".parquet",), lambda file, name, _: ParquetFile(file, name)),
    "conll": Format((".conll", ".bio", ".iob", ".iob2", ".bioes"), ConllFile),
    "squad": Format((".json",), SquadFile),
    "semeval": Format((".txt",), SemevalFile),
    "po": Format((".po",), PoFile),
    "parallel": Format((), AlignedFiles, aligned=True),
    "text": Format((".txt", ".md", ".rst", ".text", ".txt.gz", ".md.gz"), PlainText, keys=("unit",)),
    "pydocs": Format((".py",), lambda file, name, _: PythonFile(file, name)),
}
