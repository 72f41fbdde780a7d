"""CoNLL columns: a word a line with its tag, an empty line between sentences."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from llmft.data.bio import TAG
from llmft.data.encodings import lines_of, opened, without_end
from llmft.data.source import CHUNK, START, Mark
from llmft.data.table import MANY, Table, listed
from llmft.schema.problem import Problem, UserError, plural

HINT = "Tags are O, or B-, I-, E- or S- and a kind of entity, such as B-person."
DOCUMENT = "-DOCSTART-"
_GAP = re.compile("[ \t]+")  # no other space parts columns: words may hold them
_RANGE = re.compile(r"\d+[-.]\d+")  # CoNLL-U: `1-2` before the two words of one token, `1.1` for a word left unsaid
BEHIND = "words are those of column {}, since the column before it counts them"


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


def word_column(found: Sequence[list[Word]]) -> int:
    """The column that holds the words: the first, or the one behind a column that counts them in every sentence.

    So they stand in CoNLL-U, in GermEval, and in CoNLL-2012, which has the document and its part before the count.
    """
    for place in range(min((len(word.columns) for words in found for word in words), default=1) - 1):
        cells = [[word.columns[place] for word in words] for words in found]
        if sum(map(len, cells)) > 1 and any(all(_counts(some, first) for some in cells) for first in (0, 1)):
            return place + 1
        if any(len(set(some)) > 1 for some in cells):
            break
    return 0


def _counts(cells: list[str], first: int) -> bool:
    numbers = [cell for cell in cells if not _RANGE.fullmatch(cell)]
    return numbers == [str(number) for number in range(first, first + len(numbers))]


def said(words: list[Word], column: int) -> list[Word]:
    """The lines of a sentence that hold a word; behind a column that counts, those of a range hold none."""
    return [word for word in words if not (column and _RANGE.fullmatch("".join(word.columns[column - 1 : column])))]


def _columns(line: str) -> list[str]:
    """The columns of a line: between tabs where it has any, else between spaces."""
    text = without_end(line).rstrip(" \t")
    return text.split("\t") if "\t" in text else [column for column in _GAP.split(text) if column]


def _is_comment(line: str, columns: list[str]) -> bool:
    """`# text = ...` before a sentence, GermEval's `#` and a tab too; `#topic` with a tag behind it is a word."""
    alone = "\t" not in line or columns[0] == "#"
    return line.startswith("#") and alone and len(columns) > 1 and not TAG.fullmatch(columns[-1])


@dataclass(frozen=True)
class ConllFile:
    """A file of columns: the word is one of the first, its tag the last."""

    file: Path
    name: str
    """The file as row ids name it."""
    encoding: str
    column: int = 0
    """Where the words stand."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is a sentence, `tokens` and `tags`, named by the line of its first word."""
        mark = start or START
        table = Table({"tokens": [], "tags": []})
        problems: list[Problem] = []
        with opened(self.file, self.name, self.encoding, mark.position) as stream:
            for words in sentences(enumerate(lines_of(stream, self.name, mark.line), mark.line)):
                whole = said(words, self.column)
                if found := [problem for word in whole if (problem := self._fault(word))]:
                    problems += found
                elif whole:
                    table.columns["tokens"].append([word.columns[self.column] for word in whole])
                    table.columns["tags"].append([word.columns[-1] for word in whole])
                    table.ids.append(f"{self.name}:{words[0].line}")
                    if self.column:
                        table.left_out[BEHIND.format(self.column + 1)] += len(whole)
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
        if len(columns) < self.column + 2:
            return Problem(
                place, f"has {plural(len(columns), 'columns')}; words are in column {self.column + 1}, and tags behind"
            )
        if not columns[self.column]:
            return Problem(place, "has a tag and no word")
        return None if TAG.fullmatch(columns[-1]) else Problem(place, f"{columns[-1]!r} is no tag", hint=HINT)


def open_conll(file: Path, name: str, encoding: str) -> ConllFile:
    """A file of columns by its first sentences.

    Raises:
        UserError: for a file that counts words and holds none.
    """
    with opened(file, name, encoding) as stream:
        found = list(islice(sentences(enumerate(lines_of(stream, name, 1), 1)), CHUNK))
    column = word_column(found)
    if column and column + 1 == min(len(word.columns) for words in found for word in words):
        what = f"column {column} counts words, and the one behind it, the last, holds their tags"
        raise UserError(Problem(name, what, hint="Write a word and its tag on each line, parted by a tab."), "the data")
    return ConllFile(file, name, encoding, column)
