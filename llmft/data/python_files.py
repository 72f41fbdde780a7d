"""What people wrote into Python files: docstrings and comments, read as text; no code is imported or run."""

import ast
import io
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmft.data.plain_text import Documents
from llmft.data.source import START, Mark
from llmft.data.table import Table

HOME = Path(sysconfig.get_path("stdlib"))
# Packages of the user are no part of it, and many systems leave its tests out.
OTHERS = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
NO_TEXT = re.compile(r"#!|#.*?coding[:=]|#\s*(type|noqa|pragma|pylint)\b")  # for programs to read
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def of_the_library(files: list[Path]) -> list[Path]:
    """Those that are modules of the standard library."""
    return [file for file in files if not OTHERS.intersection(file.relative_to(HOME).parts)]


@dataclass(frozen=True)
class PythonFile:
    """A module, which is one document: its docstrings and blocks of comments in their order, an empty line between."""

    file: Path
    name: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Always all of it. A file that is no Python of this version has none."""
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
    """Line and text of each docstring, without its indent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of backslashes in somebody else's code
        tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def _comments(code: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment; lines of comments that follow each other, and nothing else on them, are one."""
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
