"""The JSON of SQuAD (Rajpurkar et al. 2016, 2018): articles, their paragraphs, questions on each. A row a question."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmft.data.encodings import opened
from llmft.data.source import START, Mark
from llmft.data.table import Table, listed
from llmft.schema.problem import Problem, UserError

COLUMNS = ("id", "title", "question", "context", "answers")


@dataclass(frozen=True)
class SquadFile:
    """A .json file in the form of SQuAD 1.1 or 2.0. It is one chunk, whatever its size."""

    file: Path
    name: str
    encoding: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is named by the question's `id`, which an editor finds; else by its number."""
        table, missing, wrong = self.read()
        yield START, table
        if missing or wrong:
            raise UserError(listed(missing + wrong), "the data")

    def read(self) -> tuple[Table, list[Problem], list[Problem]]:
        """The questions that are whole, what is missing of others, and what the ids and answers of these contradict.

        Raises:
            UserError: for a file that is no JSON, or no object.
        """
        with opened(self.file, self.name, self.encoding) as stream:
            try:
                tree = json.loads(stream.read())
            except json.JSONDecodeError as error:
                raise UserError(
                    Problem(f"{self.name}:{error.lineno}", f"is no JSON: {error.msg}"), "the data"
                ) from error
        if not isinstance(tree, dict):
            hint = "Rows with question, context and answers are read with dataset=json."
            raise UserError(Problem(self.name, "is no object with the key 'data', as SQuAD's files are", hint=hint))
        walk = _Walk(self.name)
        rows = list(walk.questions(tree))
        table = Table({key: [row[key] for row in rows] for key in COLUMNS}, walk.places)
        return table, walk.missing, walk.wrong


@dataclass
class _Walk:
    """A way through the tree of a file, which notes what is missing and goes on."""

    name: str
    missing: list[Problem] = field(default_factory=list)
    wrong: list[Problem] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """Of the questions, `FILE:ID`."""
    seen: set[str] = field(default_factory=set)

    def questions(self, tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A row for each question that is whole."""
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
                self.missing.append(Problem(f"{self.name}:{place}", "is no object"))

    def _text(self, node: dict[str, Any], key: str, path: str) -> str | None:
        found = node.get(key)
        if isinstance(found, str):
            return found
        self._missing(path, "text", key)
        return None

    def _answers(self, question: dict[str, Any], path: str) -> Any:
        """None where the file has none to tell, as that of a test."""
        answers = question.get("answers")
        if question.get("is_impossible") is not True:
            return answers
        if answers:
            self.wrong.append(Problem(f"{self.name}:{path}", "is_impossible is true, and it has answers"))
        return []

    def _missing(self, path: str, kind: str, key: str) -> None:
        place = f"{self.name}:{path}" if path else self.name
        self.missing.append(Problem(place, f"has no {kind} {key!r}"))
