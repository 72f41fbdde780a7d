"""Where keys were set: what a message says of a place."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Where dotted keys were set."""

    of: Callable[[str], str]
    """`command line` or `FILE:LINE`. Working it out takes 0.4 s, so that only messages ask for it."""
    given: frozenset[str] = frozenset()
    """The keys of the command line."""
    chosen: frozenset[str] = frozenset()
    """The groups of which the command line names an option."""

    def __call__(self, key: str) -> str:
        """Where `key` was set."""
        return self.of(key)

    def typed(self, key: str) -> bool:
        """Whether a person gave the key, or a table around it, on the command line."""
        return any(key == word or key.startswith(f"{word}.") for word in self.given)
