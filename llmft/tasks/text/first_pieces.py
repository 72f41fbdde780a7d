"""A long text in windows that share some tokens: where each of its words is answered."""

from collections.abc import Sequence

Place = tuple[int, int]
"""A word, and the place of its first token in the window."""


def first_pieces(windows: Sequence[Sequence[int | None]], shared: int) -> list[list[Place]]:
    """The words that each window of a text answers: every word that has tokens, once.

    A word that stands in two windows is answered by the one that shows more around it. There is no end to what is
    around a word at the beginning or the end of the whole text.

    Args:
        windows: for each token of each window its word, None for special tokens.
        shared: tokens that a window shares with the one before it.
    """
    best: dict[int, tuple[float, int, int]] = {}  # word -> what is around it, the window, the place
    before: list[int] = []  # the words of the tokens of the window before
    for number, window in enumerate(windows):
        tokens = [(place, word) for place, word in enumerate(window) if word is not None]
        # A window may begin in the middle of a word, whose first token is not in it.
        last = before[len(before) - shared - 1] if number else None
        for i, (place, word) in enumerate(tokens):
            if word != last:
                left = i if number else float("inf")
                right = len(tokens) - 1 - i if number < len(windows) - 1 else float("inf")
                around = min(left, right)
                if word not in best or around > best[word][0]:
                    best[word] = (around, number, place)
            last = word
        before = [word for _, word in tokens]
    found: list[list[Place]] = [[] for _ in windows]
    for word, (_, number, place) in sorted(best.items()):
        found[number].append((word, place))
    return found
