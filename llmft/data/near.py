"""Texts that are nearly the same, by the runs of characters that they share: no language needs to be known."""

import re
import zlib
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

RUN = 5  # characters: a changed word spoils a few runs of a text, and a chance word in common gives few
PERMUTATIONS = 128
SEED = 1
BATCH = 4096  # runs that are hashed at a time: each takes PERMUTATIONS numbers meanwhile
# Candidates are compared as they are: a false one costs time, a missed one stays in the data. Of pairs just at the
# threshold, 0.5 to 0.9, these weights find 80 to 92 in 100, and of those well above it nearly all.
WEIGHTS = (0.1, 0.9)
_SPACE = re.compile(r"\s+")


def runs(text: str) -> set[str]:
    """The runs of RUN characters in a text, without case and extra space; all of a shorter text is one."""
    text = _SPACE.sub(" ", text.casefold()).strip()
    return {text[start : start + RUN] for start in range(max(1, len(text) - RUN + 1))}


def likeness(one: str, other: str) -> float:
    """The share of the runs of two texts that both have (Jaccard), 0 to 1."""
    first, second = runs(one), runs(other)
    return len(first & second) / len(first | second)


class Near:
    """Texts by their MinHashes, to ask which of them another text is like.

    Candidates come from locality-sensitive hashing of MinHashes (Broder 1997; Leskovec et al., Mining of Massive
    Datasets, 3.4), which misses some pairs at the threshold; every pair that is found is checked. The same texts give
    the same pairs.
    """

    def __init__(self, threshold: float, text_of: Callable[[int], str]) -> None:
        """`text_of` gives a text back by its number."""
        from datasketch import MinHash, MinHashLSH

        self.threshold, self.text_of = threshold, text_of
        self.index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=WEIGHTS)
        self.empty = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=zlib.crc32)

    def hashed(self, text: str) -> Any:
        """The MinHash of a text."""
        found, parts = self.empty.copy(), [run.encode("utf-8", "surrogatepass") for run in runs(text)]
        for start in range(0, len(parts), BATCH):
            found.update_batch(parts[start : start + BATCH])
        return found

    def twin(self, text: str, hashed: Any) -> int | None:
        """The first text that was added and is like `text`."""
        candidates = sorted(self.index.query(hashed))
        return next((one for one in candidates if likeness(text, self.text_of(one)) >= self.threshold), None)

    def add(self, number: int, hashed: Any) -> None:
        """Take a text in, by its MinHash."""
        self.index.insert(number, hashed)


def near(texts: list[str], threshold: float, start: int = 0) -> dict[int, int]:
    """Each text from `start` on that is like an earlier one that stays, and the first such."""
    known = Near(threshold, texts.__getitem__)
    found: dict[int, int] = {}
    for row, text in enumerate(tqdm(texts, "near duplicates", unit=" rows", disable=None, leave=False)):
        hashed = known.hashed(text)
        twin = known.twin(text, hashed) if row >= start else None
        if twin is None:
            known.add(row, hashed)
        else:
            found[row] = twin
    return found
