"""Answers rows for `llmft predict` and `chat`, by the same path as eval. A bad row gets its error as the answer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar

import torch
from datasets import Dataset

from llmft.data import clean
from llmft.data.arrow import to_dataset
from llmft.data.cell_values import joined_name, text_of
from llmft.data.checks import empty_inputs
from llmft.data.roles import assign, locate_images
from llmft.data.source import Table
from llmft.predictions.rows import Row
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.optional import Explains, Notes
from llmft.tasks.task import Answer, Task
from llmft.training.evaluation import predict
from llmft.training.features import CHUNK, encode

T = TypeVar("T")
WHAT = "this row"  # in messages, where those of training have the name of a split


@dataclass(frozen=True)
class Answering:
    """A trained model with its task, and the config that maps input columns to the task's roles."""

    task: Task[Any]
    model: torch.nn.Module
    dataset: DatasetConfig
    batch_size: int
    file_task: Task[Any] | None = None
    """The task that checks the columns of a file, if it is not `task`."""
    explain: bool = False
    """Whether answers have the weights of the parts of their input, `predict.explain`."""
    folder: Path = Path()
    """What paths of images are relative to."""
    seen: Table = field(default_factory=Table)
    """The first rows that were answered, at least CHUNK if there are so many; `notes` compares them with training."""

    def notes(self) -> list[str]:
        """How the answered rows differ from those of training, a line for each difference."""
        if not len(self.seen) or not isinstance(self.task, Notes):
            return []
        # As text: JSON lines may have a number in one row and a string in another, and an Arrow column has one type.
        columns = {
            role: [{name: text_of(cell) for name, cell in row.items()} for row in values]
            if role in self.task.columns and self.task.columns[role].kind == "features"
            else values
            for role, values in self.seen.columns.items()
        }
        return self.task.notes_on(to_dataset(Table(columns, self.seen.ids)), "the input")

    def check_columns(self, columns: list[str], whole: bool = True) -> None:
        """Raise UserError if columns are missing, before any row is read: none of them could be answered.

        Args:
            columns: the names of the input's columns.
            whole: whether they are the columns of a file, not of a single row that was typed.
        """
        task = self.file_task if whole and self.file_task is not None else self.task
        empty = Row("the input", dict.fromkeys(columns))
        rows = to_dataset(self._assign_roles([empty], "the input")).select([])
        if problems := task.check(rows, "the input"):
            raise UserError([problem._replace(key="predict.input") for problem in problems], "the data")

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """The answer of each row, in order, or `{"error": reason}` for a row that cannot be answered."""
        alike: dict[frozenset[str], list[Row]] = {}  # rows with the same keys: in JSON a missing column is no key
        for row in rows:
            if not row.error:
                alike.setdefault(frozenset(row.values), []).append(row)
        found = {keys: iter(self._answers(group)) for keys, group in alike.items()}
        return [{"error": row.error} if row.error else next(found[frozenset(row.values)]) for row in rows]

    def _answers(self, rows: Sequence[Row]) -> list[Answer]:
        """The answers of rows with the same keys, all together; if that fails, each half by itself.

        So any check of any task becomes the error of a single row: one bad row in 1,000 costs 20 more tries. Where the
        error names all bad rows, as that of images does, the others are answered at the second one.
        """
        try:
            return self._answer_batch(rows)
        except UserError as error:
            if len(rows) == 1:
                return [{"error": "; ".join(map(str, error.problems))}]
            told: dict[str, list[str]] = {}
            for problem in error.problems:
                told.setdefault(problem.key, []).append(str(problem))
            if told.keys() < {row.id for row in rows}:
                good = iter(self._answers([row for row in rows if row.id not in told]))
                return [{"error": "; ".join(told[row.id])} if row.id in told else next(good) for row in rows]
        half = len(rows) // 2
        return self._answers(rows[:half]) + self._answers(rows[half:])

    def _answer_batch(self, rows: Sequence[Row]) -> list[Answer]:
        table = self._assign_roles(rows, WHAT)
        if empty := empty_inputs(table, self.task.columns):
            raise UserError([Problem(table.ids[row], what) for row, what in empty.items()])
        found = to_dataset(table)
        if problems := self.task.check(found, WHAT):
            raise UserError(problems)
        if len(self.seen) < CHUNK:
            self.seen.extend(Table(table.columns, table.ids))
        answers = self._ask(found)
        if self.explain and isinstance(self.task, Explains):
            explained = self.task.explain(found, answers, self._ask)
            answers = [answer | {"explanation": one} for answer, one in zip(answers, explained, strict=True)]
        return answers

    def _ask(self, rows: Dataset) -> list[Answer]:
        """The answers of the model to rows by role."""
        return predict(self.task, self.model, encode(self.task, rows), self.batch_size).answers

    def _assign_roles(self, rows: Sequence[Row], name: str) -> Table:
        """The columns that the task takes as inputs, under the names of their roles, cleaned. Labels are ignored."""
        table = Table({key: [row.values[key] for row in rows] for key in rows[0].values}, [row.id for row in rows])
        columns = self.task.columns
        images = [joined_name(self.dataset, role) for role, spec in columns.items() if spec.kind == "image"]
        table = locate_images(table, self.folder, images)
        inputs = {role: spec for role, spec in columns.items() if spec.is_input}
        # An optional role counts only if the input has its column, since another role may take its place. The features
        # of a table are left to `task.check`, which names the missing ones.
        named = {
            role: column
            for role, column in self.dataset.columns.items()
            if role in inputs
            and inputs[role].kind != "features"
            and (inputs[role].required or str(column).partition(".")[0] in rows[0].values)
        }
        assigned = assign(table, self.dataset.model_copy(update={"columns": named}), inputs, name)
        return clean.repair(assigned, inputs, self.dataset.clean)[0]


def windows(rows: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """All rows, `size` at a time. The same rows always share a batch, so their scores repeat to the last digit."""
    rows = iter(rows)
    while window := list(islice(rows, size)):
        yield window


def available_windows(rows: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """All rows, at most `size` at a time, and fewer when the next one is not there yet, as in a pipe.

    A thread reads at most `size` rows ahead. An error of `rows` is raised here, after the rows before it.
    """
    # Each row in a tuple: None in the queue is the end, and a row may be anything.
    queue: SimpleQueue[tuple[T] | None] = SimpleQueue()
    room = Semaphore(size)  # an endless pipe must not fill the memory while a slow model answers
    errors: list[BaseException] = []

    def read() -> None:
        try:
            for row in rows:
                room.acquire()
                queue.put((row,))
        except BaseException as error:
            errors.append(error)
        finally:
            queue.put(None)

    Thread(target=read, daemon=True).start()
    more = True
    while more:
        window: list[T] = []
        while more and len(window) < size:
            try:
                found = queue.get(block=not window)  # waits for the first row of a window only
            except Empty:
                break
            if found is None:
                more = False
            else:
                room.release()
                window.append(found[0])
        if window:
            yield window
    if errors:
        raise errors[0]
