"""Answers rows for `llmft predict` and `chat`, by the same path as eval. A bad row gets its error as the answer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar

import torch

from llmft.data.arrow import to_dataset
from llmft.data.cell_values import text_of
from llmft.data.source import Rows, Table
from llmft.predictions.inputs import Inputs, Row, in_order
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from llmft.tasks.explaining import explained
from llmft.tasks.optional import Explains, Notes
from llmft.tasks.task import Answer, Task
from llmft.training.evaluation import predict
from llmft.training.features import CHUNK, encode
from llmft.training.introspection import asking

T = TypeVar("T")


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
        rows = to_dataset(self._inputs.assign_roles([empty], "the input")).select([])
        if problems := task.check(rows, "the input"):
            raise UserError([problem._replace(key="predict.input") for problem in problems], "the data")

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """The answer of each row, in order, or `{"error": reason}` for a row that cannot be answered."""
        return in_order(len(rows), *self._inputs.split(rows, self._answer_table))

    @property
    def _inputs(self) -> Inputs:
        return Inputs(self.task, self.dataset, self.folder)

    def _answer_table(self, table: Table) -> list[Answer]:
        if len(self.seen) < CHUNK:
            self.seen.extend(Table(table.columns, table.ids))
        answers = predict(self.task, self.model, encode(self.task, table), self.batch_size).answers
        if self.explain and isinstance(self.task, Explains):
            ask = asking(self.task.for_inference(""), self.model, self._ask)
            found = explained(self.task, table, answers, ask)
            answers = [answer | {"explanation": one} for answer, one in zip(answers, found, strict=True)]
        return answers

    def _ask(self, rows: Rows) -> list[Answer]:
        """What `Explains.explain` asks with: the answers to rows by role, as `eval` has them."""
        task = self.task.for_inference("")
        return predict(task, self.model, encode(task, rows), self.batch_size).answers


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
