"""Rows to answer, as a task takes them: columns become roles, texts are cleaned, and a bad row gets its reason.

`llmft predict` and the service share this path. It imports neither torch nor datasets, so that a service of an export
starts without them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from llmft.data import clean
from llmft.data.cell_values import joined_name
from llmft.data.checks import empty_inputs
from llmft.data.roles import assign, locate_images
from llmft.data.source import Table
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.task import Task

T = TypeVar("T")
WHAT = "this row"  # in messages, where those of training have the name of a split


class Row(NamedTuple):
    """A row, or the reason why it cannot be read."""

    id: str
    """`FILE:LINE`, as an editor counts; `FILE:ROW`, from 1, for files without lines."""
    values: dict[str, Any]
    error: str = ""


class Part(NamedTuple, Generic[T]):
    """Rows that went through together."""

    places: list[int]
    """Their indices among all rows."""
    found: T
    """What was made of them."""


@dataclass(frozen=True)
class Inputs:
    """How rows by column become rows by role."""

    task: Task[Any]
    dataset: DatasetConfig
    """It maps input columns to the task's roles, and says how texts are cleaned."""
    folder: Path = Path()
    """What paths of images are relative to."""

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The roles of the task, which makes them again whenever it is asked."""
        return self.task.columns

    def split(self, rows: Sequence[Row], make: Callable[[Table], T]) -> tuple[list[Part[T]], dict[int, str]]:
        """What `make` makes of the good rows, in one or more parts, and why the others are bad, by index.

        Args:
            make: called with rows by role that have passed all checks. If it raises UserError, the halves of the rows
                are tried, until the bad row is alone.
        """
        alike: dict[frozenset[str], list[int]] = {}  # rows with the same keys: in JSON a missing column is no key
        bad = {place: row.error for place, row in enumerate(rows) if row.error}
        for place, row in enumerate(rows):
            if place not in bad:
                alike.setdefault(frozenset(row.values), []).append(place)
        parts: list[Part[T]] = []
        waiting = list(reversed(alike.values()))
        while waiting:
            places = waiting.pop()
            try:
                parts.append(Part(places, make(self.checked([rows[place] for place in places]))))
            except UserError as error:
                if len(places) == 1:
                    bad[places[0]] = "; ".join(map(str, error.problems))
                    continue
                told = {problem.key for problem in error.problems}
                # Where the error names all bad rows, as that of images does, the others are answered at the second try.
                # Each named row is tried alone: only beside the others it may have been bad, as a list among numbers.
                if told < {rows[place].id for place in places}:
                    waiting += [[place] for place in places if rows[place].id in told]
                    waiting.append([place for place in places if rows[place].id not in told])
                else:  # any check of any task: one bad row in 1,000 costs 20 more tries
                    half = len(places) // 2
                    waiting += [places[half:], places[:half]]
        return parts, bad

    def checked(self, rows: Sequence[Row]) -> Table:
        """Rows with the same keys, by role.

        Raises:
            UserError: if one of them has an empty text, or does not pass the checks of the task.
        """
        table = self.assign_roles(rows, WHAT)
        if empty := empty_inputs(table, self.columns):
            raise UserError([Problem(table.ids[row], what) for row, what in empty.items()])
        if problems := self.task.check(table, WHAT):
            raise UserError(problems)
        return table

    def assign_roles(self, rows: Sequence[Row], name: str) -> Table:
        """The columns that the task takes as inputs, under the names of their roles, cleaned. Labels are ignored."""
        table = Table({key: [row.values[key] for row in rows] for key in rows[0].values}, [row.id for row in rows])
        images = [joined_name(self.dataset, role) for role, spec in self.columns.items() if spec.kind == "image"]
        table = locate_images(table, self.folder, images)
        inputs = {role: spec for role, spec in self.columns.items() if spec.is_input}
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


def in_order(count: int, parts: Sequence[Part[list[dict[str, Any]]]], bad: Mapping[int, str]) -> list[dict[str, Any]]:
    """The answers of all rows in their order; a bad row has `{"error": reason}`."""
    answers: list[dict[str, Any]] = [{"error": bad[place]} if place in bad else {} for place in range(count)]
    for part in parts:
        for place, answer in zip(part.places, part.found, strict=True):
            answers[place] = answer
    return answers
