"""Roles: what a task expects of the columns of its data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Column:
    """A role that a column can play."""

    kind: Literal["text", "texts", "words", "json", "image", "label", "labels", "number", "features", "group"]
    """`text` is read as text whatever it looks like. `texts` is a list of texts, or a single one. `words` is a list of
    texts, or a text that is split at spaces. `json` is any value, which the task receives as JSON. `image` is the
    path of a file, or its bytes: the task receives `{"path": ..., "bytes": ...}`, see data/images.py. `label` is one
    class, `labels` are several, `number` is a number. `features` are all columns without a role. Rows with the same
    `group` stay in one split."""
    required: bool = True
    separator: str = ","
    """The separator of several labels in a cell of text."""

    ids: bool = False
    """Of text and texts, whether whole numbers are texts, too: JSON has ids of users and items as either."""
    target: bool = False
    """What the model predicts: not an input, even if it is a text."""
    blank: bool = False
    """Whether a text may be empty."""
    fixed: bool = False
    """Whether another role refers to positions in this text, so that cleaning must not change it."""
    missing: tuple[str, ...] | None = None
    """For a label in a table: cells that mean no label, besides the usual ones such as NA. None: every cell is a
    label."""
    labels: tuple[str, ...] = ()
    """The labels, if they are declared."""
    structure: Callable[[Any], bool] | None = None
    """For `json` that may also be plain text: whether the parsed JSON of a csv cell is a structure that the role takes,
    and not text. In formats with lists and objects of their own, a text is always text. None: the role takes no plain
    text."""
    at_least: float | None = None
    """For a label that is a number in the file, such as a rating: from this number on it is `1`, below it `0`."""
    otherwise: str = ""
    """What to write if the data have no such column."""
    unless: str = ""
    """Another role; without it, this one is required."""
    also: tuple[str, ...] = ()
    """Other names that exports of other programs use: a column of lists with one of these names plays the role."""

    @property
    def is_input(self) -> bool:
        """Whether the model reads it. Labels and groups are not inputs."""
        return self.kind in ("text", "texts", "words", "json", "image", "features") and not self.target


CORPUS_COLUMNS = {"text": Column("text"), "document": Column("label", required=False)}
"""The roles of a task on raw text. Consecutive rows with the same `document` are parts of one text."""
