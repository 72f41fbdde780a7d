"""Reads documents: plain text, texts in one folder per class, and docstrings and comments of Python files."""

import ast
import io
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from llmft.data.encodings import nul_problem, open_text
from llmft.data.files import has_ending
from llmft.data.source import CHUNK, MANY, START, FileGroup, Mark, Table, listed
from llmft.schema.problem import Problem, UserError

PIECE = 250_000  # maximum characters of a row, at most 1 MB of UTF-8
BATCH = 4 * PIECE  # maximum characters of a chunk
TEXTS = (".txt", ".text", ".md")

HOME = Path(sysconfig.get_path("stdlib"))
# Folders inside it that are not part of the library: the user's packages, and tests, which many systems leave out.
OTHERS = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
NO_TEXT = re.compile(r"#!|#.*?coding[:=]|#\s*(type|noqa|pragma|pylint)\b")  # comments for tools, not for people
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Documents:
    """Builds rows from lines. A document that is too long for one row becomes several, with the same `document`."""

    name: str
    table: Table = field(default_factory=lambda: Table({"text": [], "document": []}))
    size: int = 0
    """Characters in the table."""
    document: str = ""
    """The id of the current document."""
    piece: list[str] = field(default_factory=list)
    """The parts of the current row."""
    line: int = 1
    """The line where the current row begins."""
    held: int = 0
    """Characters of the current row."""

    def begin(self, line: int) -> None:
        """Start a document at this line."""
        self.close()
        self.document, self.line = f"{self.name}:{line}", line

    def add(self, text: str, line: int) -> None:
        """Add text at this line to the document. Blank text never starts a row; it is added to the row before."""
        if self.held + len(text) > PIECE and (text.strip() or self.held > 2 * PIECE):
            self.close()
            self.line = line
        self.piece.append(text)
        self.held += len(text)

    def close(self) -> None:
        """End the current row."""
        if self.piece:
            self.table.columns["text"].append("".join(self.piece))
            self.table.columns["document"].append(self.document)
            self.table.ids.append(f"{self.name}:{self.line}")
            self.size += self.held
            self.piece, self.held = [], 0

    def taken(self) -> Table:
        """Return the rows so far, and start an empty table."""
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
    """What one document is."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Yields all rows whatever `start` is: a corpus is read from end to end.

        The id of a row has the line where it starts. Empty lines belong to the document before them.
        """
        documents = Documents(self.name)
        documents.begin(1)
        filled = blank = False
        with open_text(self.file, self.name, self.encoding) as stream:
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
    """Numbered lines with their line ends; a line of more than PIECE characters comes in parts."""
    number = 1
    for line in iter(lambda: stream.readline(PIECE), ""):
        if "\0" in line:
            raise UserError(nul_problem(file, f"{name}:{number}"), "the data")
        yield number, line
        number += line.endswith("\n")


def files_by_class(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The text files one level below a folder, class by class."""
    return sorted(file for file in folder.glob("*/*") if has_ending(file, suffixes) and file.is_file())


@dataclass(frozen=True)
class ClassFolders(FileGroup):
    """Files with one text each, in one folder per class."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Yields all rows whatever `start` is. The last line end of a file is not part of its text."""
        table = Table({"text": [], "label": []})
        folders = {file.parent.parent for file in self.files}
        inside = sum(one.is_file() and not one.name.startswith(".") for folder in folders for one in folder.rglob("*"))
        if others := inside - len(self.files):
            table.left_out["other files were left out: texts are read from CLASS/NAME.txt"] = others
        problems: list[Problem] = []
        for file, name in zip(self.files, self.names, strict=True):
            try:
                with open_text(file, name, self.encoding) as stream:
                    text = stream.read()
                if "\0" in text:
                    raise UserError(nul_problem(file, name), "the data")
            except UserError as error:
                problems += error.problems
                if len(problems) >= MANY:
                    break
                continue
            table.columns["text"].append(text.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r"))
            table.columns["label"].append(file.parent.name)
            table.ids.append(f"{name}:1")
            if len(table) == CHUNK:
                yield START, table
                table = Table({"text": [], "label": []})
        if len(table):
            yield START, table
        if problems:
            raise UserError(listed(problems), "the data")


def of_the_library(files: list[Path]) -> list[Path]:
    """The files that are modules of Python's standard library."""
    return [file for file in files if not OTHERS.intersection(file.relative_to(HOME).parts)]


@dataclass(frozen=True)
class PythonFile:
    """A Python module as one document: its docstrings and comment blocks in order, separated by an empty line."""

    file: Path
    name: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A file that this version of Python cannot parse has no rows."""
        try:
            with tokenize.open(self.file) as stream:
                code = stream.read()
            texts = sorted([*_docstrings(code), *_comments(code)])
        except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
            return
        documents = Documents(self.name)
        for line, text in texts:
            if not documents.document:
                documents.begin(line)
            documents.add(f"{text}\n\n", line)
        documents.close()
        if table := documents.taken():
            yield START, table


def _docstrings(code: str) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, without indentation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's code
        tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def _comments(code: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment. Consecutive lines with only a comment are one."""
    first, last, lines = 0, 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type != tokenize.COMMENT or NO_TEXT.match(token.string):
            continue
        line = token.start[0]
        alone = not token.line[: token.start[1]].strip()
        if not (alone and line == last + 1) and lines:
            yield first, "\n".join(lines)
            lines = []
        first, last = (first, line) if lines else (line, line if alone else -1)
        lines.append(token.string.lstrip("#").removeprefix(" ").rstrip())
    if lines:
        yield first, "\n".join(lines)
