"""Texts that are nearly the same, by the runs of characters that they share: no language needs to be known."""

import re
import zlib

from tqdm import tqdm

RUN = 5  # characters: a changed word spoils a few runs of a text, and a chance word in common gives few
PERMUTATIONS = 128
SEED = 1
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


def near(texts: list[str], threshold: float, start: int = 0) -> dict[int, int]:
    """Each text from `start` on that is like an earlier one that stays, and the first such.

    Candidates come from locality-sensitive hashing of MinHashes (Broder 1997; Leskovec et al., Mining of Massive
    Datasets, 3.4), which misses some pairs at the threshold; every pair that is found is checked. The same texts give
    the same pairs.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=WEIGHTS)
    found: dict[int, int] = {}
    batches = ([run.encode("utf-8", "surrogatepass") for run in runs(text)] for text in texts)
    hashes = MinHash.generator(batches, num_perm=PERMUTATIONS, seed=SEED, hashfunc=zlib.crc32)
    progress = tqdm(hashes, "near duplicates", total=len(texts), unit=" rows", disable=None, leave=False)
    for row, hashed in enumerate(progress):
        candidates = sorted(index.query(hashed)) if row >= start else []
        twin = next((other for other in candidates if likeness(texts[row], texts[other]) >= threshold), None)
        if twin is None:
            index.insert(row, hashed)
        else:
            found[row] = twin
    return found
