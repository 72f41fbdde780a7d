"""Plain text: files whose lines are nothing but text. The rows of a file, put together, are the file."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from llmft.data.encodings import nul, opened
from llmft.data.source import CHUNK, START, Mark
from llmft.data.table import Table
from llmft.schema.problem import UserError

PIECE = 250_000  # characters of a row: at most 1 MB of UTF-8
BATCH = 4 * PIECE  # characters of a chunk


@dataclass
class Documents:
    """Rows that grow from lines. What is too long for one row is several, with one value of `document`."""

    name: str
    table: Table = field(default_factory=lambda: Table({"text": [], "document": []}))
    size: int = 0
    """Characters of the table."""
    document: str = ""
    piece: list[str] = field(default_factory=list)
    line: int = 1
    """Where the piece begins."""
    held: int = 0
    """Characters of the piece."""

    def begin(self, line: int) -> None:
        """What comes next belongs to a document that begins on this line."""
        self.close()
        self.document, self.line = f"{self.name}:{line}", line

    def add(self, text: str, line: int) -> None:
        """Some more of the document, from this line. No row is made of blanks alone: they go to the one before."""
        if self.held + len(text) > PIECE and (text.strip() or self.held > 2 * PIECE):
            self.close()
            self.line = line
        self.piece.append(text)
        self.held += len(text)

    def close(self) -> None:
        """Make a row of what is there."""
        if self.piece:
            self.table.columns["text"].append("".join(self.piece))
            self.table.columns["document"].append(self.document)
            self.table.ids.append(f"{self.name}:{self.line}")
            self.size += self.held
            self.piece, self.held = [], 0

    def taken(self) -> Table:
        """The rows so far, which are not given again."""
        table = self.table
        self.table, self.size = Table({"text": [], "document": []}), 0
        return table


@dataclass(frozen=True)
class PlainText:
    """A .txt or .md file."""

    file: Path
    name: str
    """The file as row ids name it."""
    encoding: str
    unit: Literal["file", "paragraph", "line"]
    """What is a document."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Always all rows: a corpus is read from end to end. A row is named by the line where it starts.

        Empty lines belong to what stands before them.
        """
        documents = Documents(self.name)
        documents.begin(1)
        filled = blank = False
        with opened(self.file, self.name, self.encoding) as stream:
            for number, line in _lines(stream, self.file, self.name):
                empty = not line.strip()
                if not empty:
                    if filled and (self.unit == "line" or (self.unit == "paragraph" and blank)):
                        documents.begin(number)
                    filled = True
                blank = empty
                documents.add(line, number)
                if len(documents.table) >= CHUNK or documents.size >= BATCH:
                    yield START, documents.taken()
        documents.close()
        if table := documents.taken():
            yield START, table


def _lines(stream: TextIO, file: Path, name: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers and line ends; a line of more than PIECE characters in parts."""
    number = 1
    for line in iter(lambda: stream.readline(PIECE), ""):
        if "\0" in line:
            raise UserError(nul(file, f"{name}:{number}"), "the data")
        yield number, line
        number += line.endswith("\n")
