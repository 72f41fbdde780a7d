"""A hint for a word that names nothing."""

from collections.abc import Collection


def nearest(word: str, known: Collection[str]) -> str:
    """The known word that is spelt most like it, or all of them."""
    from difflib import get_close_matches

    found = get_close_matches(word, known, 1)
    return f"Did you mean {found[0]}?" if found else f"They are {', '.join(known)}."
