"""The files of SemEval-2010 Task 8: a numbered sentence in quotes, its relation, a comment, an empty line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from llmft.data.encodings import lines_of, opened
from llmft.data.source import CHUNK, START, Mark
from llmft.data.table import MANY, Table, listed
from llmft.schema.problem import Problem, UserError

SENTENCE = re.compile(r'\s*\d+\s+"(.*)"\s*')
COMMENT = "Comment:"


@dataclass(frozen=True)
class SemevalFile:
    """A file of examples, which become the columns `text` and `label`; numbers and comments are left behind."""

    file: Path
    name: str
    """The file as row ids name it."""
    encoding: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is named by the line of its sentence."""
        mark = start or START
        table = Table({"text": [], "label": []})
        problems: list[Problem] = []
        with opened(self.file, self.name, self.encoding, mark.position) as stream:
            for line, example in _examples(lines_of(stream, self.name, mark.line), mark.line):
                if found := self._fault(example, line):
                    problems.append(found)
                else:
                    columns: dict[str, list[Any]] = {"text": [_sentence(example[0])], "label": [example[1].strip()]}
                    table.extend(Table(columns, [f"{self.name}:{line}"]))
                if len(table) == CHUNK:
                    yield mark, table
                    mark, table = Mark(stream.tell(), line + len(example) + 1), Table({"text": [], "label": []})
                if len(problems) == MANY:
                    break
        if len(table):
            yield mark, table
        if problems:
            raise UserError(listed(problems), "the data")

    def _fault(self, example: list[str], line: int) -> Problem | None:
        """What is wrong with the lines of an example, which begins in `line`."""
        if _sentence(example[0]) is None:
            what = "is no sentence of SemEval, with a number before it and in quotes"
            return Problem(f"{self.name}:{line}", what, hint="For a table write dataset=csv.")
        if len(example) < 2 or example[1].startswith(COMMENT) or _sentence(example[1]) is not None:
            return Problem(f"{self.name}:{line}", "has no relation in the line below it")
        for place, text in enumerate(example[2:], line + 2):
            if not text.startswith(COMMENT):
                what = "follows a relation and is no comment"
                return Problem(f"{self.name}:{place}", what, hint="Leave an empty line before the next sentence.")
        return None


def _examples(lines: Iterator[str], number: int) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each example, and its lines; the empty one below it has been read, too."""
    example: list[str] = []
    for line in chain(lines, [""]):
        if line.strip():
            example.append(line)
            continue
        if example:
            yield number, example
        number += len(example) + 1
        example = []


def _sentence(line: str) -> str | None:
    """The text between the quotes of a numbered line; None for another line."""
    found = SENTENCE.fullmatch(line)
    return found[1] if found else None
