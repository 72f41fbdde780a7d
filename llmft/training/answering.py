"""From rows as they come to their answers, by the path of eval; what is wrong with a row becomes its answer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar

import torch

from llmft.data import clean
from llmft.data.arrow import to_dataset
from llmft.data.cell_values import text_of
from llmft.data.checks import empty_inputs
from llmft.data.roles import assign
from llmft.data.rows import Row
from llmft.data.source import Table
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.task import Answer, Task
from llmft.training.evaluation import predict
from llmft.training.features import CHUNK, encode

T = TypeVar("T")
WHAT = "this row"  # what messages call it, where those of training name a split


@dataclass(frozen=True)
class Answering:
    """A trained model, and how the columns of the input play their roles."""

    task: Task[Any]
    model: torch.nn.Module
    dataset: DatasetConfig
    batch_size: int
    of_file: Task[Any] | None = None
    """The task that checks the columns of a file, where it is another than `task`."""
    seen: Table = field(default_factory=Table)
    """The first rows that were answered, for `notes`."""

    def notes(self) -> list[str]:
        """What of the rows is unlike training, a line each."""
        if not len(self.seen):
            return []
        # As texts: one line of JSON may have a number where another has a text.
        columns = {
            role: [{name: text_of(cell) for name, cell in row.items()} for row in values]
            if role in self.task.columns and self.task.columns[role].kind == "features"
            else values
            for role, values in self.seen.columns.items()
        }
        return self.task.notes_of_rows(to_dataset(Table(columns, self.seen.ids)), "the input")

    def check_columns(self, columns: list[str], whole: bool = True) -> None:
        """Raise UserError where columns are missing: no row of them could be answered.

        Args:
            whole: these are the columns of a file, not of a row that somebody typed.
        """
        task = self.of_file if whole and self.of_file is not None else self.task
        empty = Row("the input", dict.fromkeys(columns))
        rows = to_dataset(self._roles([empty], "the input")).select([])
        if problems := task.check(rows, "the input"):
            raise UserError([problem._replace(key="predict.input") for problem in problems], "the data")

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """The answer of each row, or `{"error": why there is none}`."""
        alike: dict[frozenset[str], list[Row]] = {}  # a key that JSON leaves out is a column that is missing
        for row in rows:
            if not row.error:
                alike.setdefault(frozenset(row.values), []).append(row)
        found = {keys: iter(self._answers(group)) for keys, group in alike.items()}
        return [{"error": row.error} if row.error else next(found[frozenset(row.values)]) for row in rows]

    def _answers(self, rows: Sequence[Row]) -> list[Answer]:
        """All at once, or else by halves, until a row that cannot be answered stands alone."""
        try:
            return self._together(rows)
        except UserError as error:
            if len(rows) == 1:
                return [{"error": "; ".join(map(str, error.problems))}]
        half = len(rows) // 2
        return self._answers(rows[:half]) + self._answers(rows[half:])

    def _together(self, rows: Sequence[Row]) -> list[Answer]:
        table = self._roles(rows, WHAT)
        if empty := empty_inputs(table, self.task.columns):
            raise UserError([Problem(table.ids[row], what) for row, what in empty.items()])
        found = to_dataset(table)
        if problems := self.task.check(found, WHAT):
            raise UserError(problems)
        if len(self.seen) < CHUNK:
            self.seen.extend(Table(table.columns, table.ids))
        features = encode(self.task, found)
        return predict(self.task, self.model, features, self.batch_size).answers

    def _roles(self, rows: Sequence[Row], name: str) -> Table:
        """The inputs that the task asks for; labels are not looked at."""
        table = Table({key: [row.values[key] for row in rows] for key in rows[0].values}, [row.id for row in rows])
        columns = self.task.columns
        filled = {role for role in columns if str(self.dataset.columns.get(role, role)) in table.columns}
        inputs = {role: spec for role, spec in self.task.inference_columns(filled).items() if spec.is_input}
        # Of roles that another one can stand for, those whose columns this input has. A row of a table may have other
        # columns than those that training read, and lack some: `task.check` says which.
        named = {
            role: column
            for role, column in self.dataset.columns.items()
            if role in inputs
            and inputs[role].kind != "features"
            and (inputs[role].required or str(column).partition(".")[0] in rows[0].values)
        }
        assigned = assign(table, self.dataset.model_copy(update={"columns": named}), inputs, name)
        return clean.mend(assigned, inputs, self.dataset.clean)[0]


def windows(rows: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """All rows, `size` at a time: the same rows are answered together whenever they are read."""
    rows = iter(rows)
    while window := list(islice(rows, size)):
        yield window


def as_they_come(rows: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """All rows, at most `size` at a time, and fewer where the next one would have to be waited for.

    They are read in a thread of their own, at most `size` rows ahead.
    """
    queue: SimpleQueue[tuple[T] | None] = SimpleQueue()
    room = Semaphore(size)
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
                found = queue.get(block=not window)
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
