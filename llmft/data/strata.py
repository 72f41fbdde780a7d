"""The classes that rows are of: what shares and samples of rows keep alike."""

from collections import Counter
from collections.abc import Sequence
from typing import Any


def classes(label: Any) -> list[str]:
    """The classes that a cell of the column `label` names: one, several, or none where it is empty or a number."""
    if isinstance(label, list):
        return label
    return [label] if isinstance(label, str) else []


def strata(labels: Sequence[Any] | None) -> list[str] | None:
    """The stratum of each row: its class, or of several the one that fewest rows have. None: there are no classes."""
    cells = [classes(label) for label in labels or ()]
    counts = Counter(name for cell in cells for name in cell)
    if not counts:
        return None
    return [min(cell, key=lambda name: (counts[name], name), default="") for cell in cells]
