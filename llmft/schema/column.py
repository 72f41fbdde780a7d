"""Roles: what a task asks of the columns of its data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Column:
    """A role that a column can play."""

    kind: Literal["text", "texts", "words", "json", "label", "labels", "number", "features", "group"]
    """`text` is read as text whatever it looks like; `texts` is a list of texts, or one alone; `words` is a list of
    texts, or a text that is split at spaces; `json` is any value, which the task gets as JSON; `label` is a class,
    `labels` are several, `number` is one; `features` are all columns without a role; rows of one `group` stay in one
    split."""
    required: bool = True
    separator: str = ","
    """What stands between several labels in a cell of text."""

    target: bool = False
    """What the model is to say: no input, although it may be a text."""
    blank: bool = False
    """A text may be empty."""
    fixed: bool = False
    """Another role counts the characters of this text, so that it is never mended."""
    missing: tuple[str, ...] | None = None
    """Of a label in a table: cells that stand for none besides the usual marks such as NA. None: each is a label."""
    labels: tuple[str, ...] = ()
    """The labels, where they are declared."""
    structure: Callable[[Any], bool] | None = None
    """Of `json` that may be a plain text, too: whether what the JSON in a csv cell means is not text but what the role
    takes. In a file that can hold lists and objects itself, a text is a text. None: the role takes no plain text."""
    unless: str = ""
    """Required as well, unless this other role is there."""
    also: tuple[str, ...] = ()
    """What exports of other programs call it: a column of lists of one of these names plays the role, too."""

    @property
    def is_input(self) -> bool:
        """Whether the model sees it: labels and groups are not inputs."""
        return self.kind in ("text", "texts", "words", "json", "features") and not self.target
