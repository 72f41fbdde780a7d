"""CoNLL columns: a word a line with its tag, an empty line between sentences."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from llmft.data.bio import TAG
from llmft.data.encodings import lines_of, opened, without_end
from llmft.data.source import CHUNK, START, Mark
from llmft.data.table import MANY, Table, listed
from llmft.schema.problem import Problem, UserError

HINT = "Tags are O, or B-, I-, E- or S- and a kind of entity, such as B-person."
DOCUMENT = "-DOCSTART-"
_GAP = re.compile("[ \t]+")  # no other space parts columns: words may hold them


class Word(NamedTuple):
    """A line of a sentence."""

    line: int
    columns: list[str]


def sentences(lines: Iterable[tuple[int, str]]) -> Iterator[list[Word]]:
    """The sentences of some numbered lines; lines between documents and comments are none."""
    words: list[Word] = []
    for number, line in lines:
        columns = _columns(line)
        if not columns or columns[0] == DOCUMENT:
            if words:
                yield words
            words = []
        elif words or not _is_comment(line, columns):
            words.append(Word(number, columns))
    if words:
        yield words


def _columns(line: str) -> list[str]:
    """The columns of a line: between tabs where it has any, else between spaces."""
    text = without_end(line).rstrip(" \t")
    return text.split("\t") if "\t" in text else [column for column in _GAP.split(text) if column]


def _is_comment(line: str, columns: list[str]) -> bool:
    """`# text = ...` before a sentence; `#topic` with a tag behind it is a word."""
    return line.startswith("#") and "\t" not in line and len(columns) > 1 and not TAG.fullmatch(columns[-1])


@dataclass(frozen=True)
class ConllFile:
    """A file of columns: the word is the first, its tag the last."""

    file: Path
    name: str
    """The file as row ids name it."""
    encoding: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is a sentence, `tokens` and `tags`, named by the line of its first word."""
        mark = start or START
        table = Table({"tokens": [], "tags": []})
        problems: list[Problem] = []
        with opened(self.file, self.name, self.encoding, mark.position) as stream:
            for words in sentences(enumerate(lines_of(stream, self.name, mark.line), mark.line)):
                if found := [problem for word in words if (problem := self._fault(word))]:
                    problems += found
                else:
                    table.columns["tokens"].append([word.columns[0] for word in words])
                    table.columns["tags"].append([word.columns[-1] for word in words])
                    table.ids.append(f"{self.name}:{words[0].line}")
                if len(table) == CHUNK:
                    yield mark, table
                    # The line after the last word has been read: it is the one that ends the sentence.
                    mark, table = Mark(stream.tell(), words[-1].line + 2), Table({"tokens": [], "tags": []})
                if len(problems) >= MANY:
                    break
        if len(table):
            yield mark, table
        if problems:
            raise UserError(listed(problems), "the data")

    def _fault(self, word: Word) -> Problem | None:
        place, columns = f"{self.name}:{word.line}", word.columns
        if len(columns) == 1:
            what = f"has one column, {columns[0]!r}; a word and its tag are two"
            return Problem(place, what, hint="Part them by a tab or spaces, and sentences by an empty line.")
        if not columns[0]:
            return Problem(place, "has a tag and no word")
        return None if TAG.fullmatch(columns[-1]) else Problem(place, f"{columns[-1]!r} is no tag", hint=HINT)
