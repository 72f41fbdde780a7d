"""Tasks and models of other packages, found by their entry points. A recipe can name them, and can name no code."""

from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@cache
def plugins(group: Literal["llmft.tasks", "llmft.models"]) -> "dict[str, EntryPoint]":
    """Entry points by name. Looked up once: reading the metadata of a hundred packages takes 20 ms."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}
