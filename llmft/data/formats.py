"""The formats of files, one reader each: a line here, the reader in a file of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmft.data.conll import ConllFile
from llmft.data.parquet import ParquetFile
from llmft.data.semeval import SemevalFile
from llmft.data.source import Source
from llmft.data.squad import SquadFile
from llmft.data.text_files import open_csv, open_json


@dataclass(frozen=True)
class Format:
    """A format by what its files end in, and what opens one of them."""

    suffixes: tuple[str, ...]
    """In a folder, the files of these endings are taken."""
    open: Callable[[Path, str, str], Source]
    """File, its name in row ids, and `dataset.encoding` -> its rows. Raises UserError."""


FORMATS: dict[str, Format] = {
    "csv": Format((".csv", ".tsv", ".tab"), open_csv),
    "json": Format((".jsonl", ".json", ".ndjson"), open_json),
    "conll": Format((".conll", ".bio", ".iob", ".iob2", ".bioes"), ConllFile),
    "parquet": Format((".parquet",), lambda file, name, _: ParquetFile(file, name)),
    "squad": Format((".json",), SquadFile),
    "semeval": Format((".txt",), SemevalFile),
}
