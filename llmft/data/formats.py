"""The formats of files, one reader each: a line here, the reader in a file of its own."""

from collections.abc import Callable
from dataclasses import dataclass

from llmft.data.parquet import ParquetFile
from llmft.data.plain_text import PlainText
from llmft.data.python_files import PythonFile
from llmft.data.source import Source
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


FORMATS: dict[str, Format] = {
    "csv": Format((".csv", ".tsv", ".tab"), open_csv),
    "json": Format((".jsonl", ".json", ".ndjson"), open_json),
    "parquet": Format((".parquet",), lambda file, name, _: ParquetFile(file, name)),
    "text": Format((".txt", ".md", ".rst", ".text", ".txt.gz", ".md.gz"), PlainText, keys=("unit",)),
    "pydocs": Format((".py",), lambda file, name, _: PythonFile(file, name)),
}
