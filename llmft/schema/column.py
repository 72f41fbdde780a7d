"""Roles: what a task asks of the columns of its data."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A role that a column can play."""

    kind: Literal["text", "label", "labels", "number", "features", "group"]
    """`text` is read as text whatever it looks like; `label` is a class, `labels` are several, `number` is one;
    `features` are all columns without a role; rows of one `group` stay in one split."""
    required: bool = True
    separator: str = ","
    """What stands between several labels in a cell of text."""

    @property
    def is_input(self) -> bool:
        """Whether the model sees it: labels and groups are not inputs."""
        return self.kind in ("text", "features")
