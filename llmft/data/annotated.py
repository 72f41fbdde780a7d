"""Reads annotated text in the formats of three shared tasks.

- CoNLL columns: a word and its tag per line, an empty line between sentences. Tags in BIO, IOB1, or BIOES become BIO.
- SQuAD's JSON (Rajpurkar et al. 2016, 2018): articles, their paragraphs, and questions. One row per question.
- SemEval-2010 Task 8: a numbered sentence in quotes, its relation, a comment, an empty line.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from llmft.data.encodings import lines_of, open_text, strip_line_end
from llmft.data.source import CHUNK, MANY, START, Mark, Table, listed
from llmft.schema.problem import Problem, UserError, plural

OUTSIDE = "O"
TAG = re.compile(r"O|[BIESLU]-\S(.*\S)?")
"""`O`, or a position in an entity and the entity's kind. In BILOU, L and U are what E and S are in BIOES."""

Span = tuple[int, int, str]
"""An entity: index of its first word, index after its last word, and its kind."""

TAGS = "Tags are O, or B-, I-, E- or S- and a kind of entity, such as B-person."
DOCUMENT = "-DOCSTART-"
_GAP = re.compile("[ \t]+")  # no other space separates columns: words may contain it
_RANGE = re.compile(r"\d+[-.]\d+")  # CoNLL-U: `1-2` before the two words of one token, `1.1` for an elided word
BEHIND = "words are those of column {}, since the column before it counts them"

QUESTION_COLUMNS = ("id", "title", "question", "context", "answers")

SENTENCE = re.compile(r'\s*\d+\s+"(.*)"\s*')
COMMENT = "Comment:"


def to_bio(tags: Sequence[str]) -> list[str]:
    """The same entities in BIO: `B-` at the first word of each, and `I-` at the others.

    A word continues the entity before it if its tag is I or E, the kind is the same, and that entity has not ended with
    E or S; otherwise it begins an entity. This is right for every scheme, and invalid sequences are read as seqeval
    reads them.

    Raises:
        ValueError: naming a tag that no scheme has.
    """
    found: list[str] = []
    open_kind = ""  # of the entity that may continue
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise ValueError(f"{tag!r} is not a tag")
        place, _, kind = tag.partition("-")
        if tag == OUTSIDE:
            found.append(OUTSIDE)
            open_kind = ""
            continue
        inside = place in "IEL" and kind == open_kind
        found.append(f"I-{kind}" if inside else f"B-{kind}")
        open_kind = "" if place in "ESLU" else kind
    return found


def spans(bio: Sequence[str]) -> list[Span]:
    """The entities of a row of BIO tags, in order."""
    found: list[Span] = []
    for place, tag in enumerate(bio):
        if tag.startswith("B-"):
            found.append((place, place + 1, tag[2:]))
        elif tag.startswith("I-"):
            start, _, kind = found.pop()
            found.append((start, place + 1, kind))
    return found


class Word(NamedTuple):
    """A line of a sentence."""

    line: int
    columns: list[str]


def sentences(lines: Iterable[tuple[int, str]]) -> Iterator[list[Word]]:
    """The sentences in numbered lines, without comments and the lines between documents."""
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
    """The index of the column with the words: 0, or the one after a column that counts the words of every sentence.

    Such a count is in CoNLL-U, in GermEval, and in CoNLL-2012, after the columns for document and part.
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


def word_lines(words: list[Word], column: int) -> list[Word]:
    """The lines of a sentence with a word. After a counting column, lines with a range of numbers have none."""
    return [word for word in words if not (column and _RANGE.fullmatch("".join(word.columns[column - 1 : column])))]


def _columns(line: str) -> list[str]:
    """The columns of a line, separated by tabs if it has any, else by spaces."""
    text = strip_line_end(line).rstrip(" \t")
    return text.split("\t") if "\t" in text else [column for column in _GAP.split(text) if column]


def _is_comment(line: str, columns: list[str]) -> bool:
    """Whether a line is a comment: `# text = ...`, or GermEval's `#` and a tab; `#topic` with a tag is a word."""
    alone = "\t" not in line or columns[0] == "#"
    return line.startswith("#") and alone and len(columns) > 1 and not TAG.fullmatch(columns[-1])


@dataclass(frozen=True)
class ConllFile:
    """A file of CoNLL columns: the word in one of the first, its tag in the last."""

    file: Path
    name: str
    """The file as row ids name it."""
    encoding: str
    column: int = 0
    """The index of the column with the words."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is a sentence with `tokens` and `tags`; its id has the line of its first word."""
        mark = start or START
        table = Table({"tokens": [], "tags": []})
        problems: list[Problem] = []
        with open_text(self.file, self.name, self.encoding, mark.position) as stream:
            for words in sentences(enumerate(lines_of(stream, self.name, mark.line), mark.line)):
                whole = word_lines(words, self.column)
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
                    # The reader has consumed the empty line after the last word: the next sentence starts after it.
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
            what = f"must have a word and its tag, got one column, {columns[0]!r}"
            return Problem(place, what, hint="Separate them by a tab or spaces, and sentences by an empty line.")
        if len(columns) < self.column + 2:
            return Problem(
                place, f"has {plural(len(columns), 'columns')}; words are in column {self.column + 1}, and tags behind"
            )
        if not columns[self.column]:
            return Problem(place, "has a tag and no word")
        return None if TAG.fullmatch(columns[-1]) else Problem(place, f"{columns[-1]!r} is not a tag", hint=TAGS)


def open_conll(file: Path, name: str, encoding: str) -> ConllFile:
    """A file of CoNLL columns; its column of words is found in the first 1,000 sentences.

    Raises:
        UserError: for a file that counts words and has none.
    """
    with open_text(file, name, encoding) as stream:
        found = list(islice(sentences(enumerate(lines_of(stream, name, 1), 1)), CHUNK))
    column = word_column(found)
    if column and column + 1 == min(len(word.columns) for words in found for word in words):
        what = f"column {column} counts words, and the one behind it, the last, holds their tags"
        raise UserError(Problem(name, what, hint="Write a word and its tag on each line, parted by a tab."), "the data")
    return ConllFile(file, name, encoding, column)


@dataclass(frozen=True)
class SquadFile:
    """A .json file in the format of SQuAD 1.1 or 2.0. It is one chunk, whatever its size."""

    file: Path
    name: str
    encoding: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. The id of a row has the question's `id`, which can be searched for, else its number."""
        table, missing, wrong = self.read()
        yield START, table
        if missing or wrong:
            raise UserError(listed(missing + wrong), "the data")

    def read(self) -> tuple[Table, list[Problem], list[Problem]]:
        """The complete questions, the problems of incomplete ones, and those of contradictory ids and answers.

        Raises:
            UserError: for a file that is not a JSON object.
        """
        with open_text(self.file, self.name, self.encoding) as stream:
            try:
                tree = json.loads(stream.read())
            except json.JSONDecodeError as error:
                raise UserError(
                    Problem(f"{self.name}:{error.lineno}", f"is not JSON: {error.msg}"), "the data"
                ) from error
        if not isinstance(tree, dict):
            hint = "Rows with question, context and answers are read with dataset=json."
            raise UserError(Problem(self.name, "is not an object with the key 'data', as SQuAD's files are", hint=hint))
        walk = _Walk(self.name)
        rows = list(walk.questions(tree))
        table = Table({key: [row[key] for row in rows] for key in QUESTION_COLUMNS}, walk.places)
        return table, walk.missing, walk.wrong


@dataclass
class _Walk:
    """Walks through the tree of a SQuAD file, and collects problems instead of stopping at the first."""

    name: str
    missing: list[Problem] = field(default_factory=list)
    wrong: list[Problem] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """The row id of each question, `FILE:ID`."""
    seen: set[str] = field(default_factory=set)

    def questions(self, tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A row for each complete question."""
        number = 0
        for article_path, article in self._items(tree, "data", ""):
            for path, paragraph in self._items(article, "paragraphs", article_path):
                context = self._text(paragraph, "context", path)
                for place, question in self._items(paragraph, "qas", path):
                    number += 1
                    text = self._text(question, "question", place)
                    answers = self._answers(question, place)
                    if context is None or text is None:
                        continue
                    own = question.get("id")
                    self.places.append(f"{self.name}:{number if own is None else own}")
                    if self.places[-1] in self.seen:
                        self.wrong.append(Problem(self.places[-1], "two questions have this id"))
                    self.seen.add(self.places[-1])
                    found = {"question": text, "context": context, "answers": answers}
                    yield {"id": own, "title": article.get("title"), **found}

    def _items(self, node: dict[str, Any], key: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The objects of the list `key`, each with its path."""
        found = node.get(key)
        if not isinstance(found, list):
            self._missing(path, "list", key)
            return
        for number, item in enumerate(found):
            place = f"{path}.{key}[{number}]".removeprefix(".")
            if isinstance(item, dict):
                yield place, item
            else:
                self.missing.append(Problem(f"{self.name}:{place}", "is not an object"))

    def _text(self, node: dict[str, Any], key: str, path: str) -> str | None:
        found = node.get(key)
        if isinstance(found, str):
            return found
        self._missing(path, "text", key)
        return None

    def _answers(self, question: dict[str, Any], path: str) -> Any:
        """The answers of a question; None if the file has none, as test files do."""
        answers = question.get("answers")
        if question.get("is_impossible") is not True:
            return answers
        if answers:
            self.wrong.append(Problem(f"{self.name}:{path}", "must have no answers if is_impossible is true"))
        return []

    def _missing(self, path: str, kind: str, key: str) -> None:
        place = f"{self.name}:{path}" if path else self.name
        self.missing.append(Problem(place, f"has no {kind} {key!r}"))


@dataclass(frozen=True)
class SemevalFile:
    """A file of examples with the columns `text` and `label`; numbers and comments are dropped."""

    file: Path
    name: str
    """The file as row ids name it."""
    encoding: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. The id of a row has the line of its sentence."""
        mark = start or START
        table = Table({"text": [], "label": []})
        problems: list[Problem] = []
        with open_text(self.file, self.name, self.encoding, mark.position) as stream:
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
        """The problem of an example that starts at `line`; None if it is right."""
        if _sentence(example[0]) is None:
            what = "must be a number and a sentence in quotes, as in SemEval"
            return Problem(f"{self.name}:{line}", what, hint="For a table write dataset=csv.")
        if len(example) < 2 or example[1].startswith(COMMENT) or _sentence(example[1]) is not None:
            return Problem(f"{self.name}:{line}", "has no relation in the line below it")
        for place, text in enumerate(example[2:], line + 2):
            if not text.startswith(COMMENT):
                what = "must be a comment, since it follows a relation"
                return Problem(f"{self.name}:{place}", what, hint="Leave an empty line before the next sentence.")
        return None


def _examples(lines: Iterator[str], number: int) -> Iterator[tuple[int, list[str]]]:
    """The line number of each example, and its lines without the empty one that ends it, which has been read too."""
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
    """The text in the quotes of a numbered line; None for another line."""
    found = SENTENCE.fullmatch(line)
    return found[1] if found else None
