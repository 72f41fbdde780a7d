"""Removes rows of train that repeat other rows, exactly or nearly, and counts those whose labels differ.

Texts are compared by their character n-grams (shingles), so the language need not be known.
"""

import re
import zlib
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from llmft.data.checks import input_keys
from llmft.data.source import Table
from llmft.schema.column import Column
from llmft.schema.problem import plural

SHINGLE = 5  # characters: one changed word destroys few shingles of a text, and one word in common adds few
PERMUTATIONS = 128  # datasketch's default: an error of 1/sqrt(128) = 0.09 in the estimated similarity
SEED = 1
BATCH = 4096  # shingles hashed at once, each to PERMUTATIONS numbers of 64 bits: 4 MB
# False positives against false negatives. Every candidate is compared exactly, so a false one only costs time, and a
# missed one stays in the data. Of pairs just at a threshold of 0.5 to 0.9, these weights find 80% to 92%, and of pairs
# well above it nearly all.
WEIGHTS = (0.1, 0.9)
_SPACE = re.compile(r"\s+")


def shingles(text: str) -> set[str]:
    """All substrings of SHINGLE characters of a text, without case and extra space; a shorter text is one itself."""
    text = _SPACE.sub(" ", text.casefold()).strip()
    # At least one, also of an empty text, so that `jaccard` never divides by zero.
    return {text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1))}


def jaccard(one: str, other: str) -> float:
    """The Jaccard similarity of two texts, 0 to 1: shared shingles over all shingles of both."""
    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


class MinHashIndex:
    """An index of texts that finds those similar to another text.

    Candidates come from locality-sensitive hashing of MinHashes (Broder 1997; Leskovec et al., Mining of Massive
    Datasets, 3.4), which misses some pairs at the threshold. Every candidate is compared exactly. Deterministic: the
    same texts give the same pairs.
    """

    def __init__(self, threshold: float, text_of: Callable[[int], str]) -> None:
        """`text_of` returns an added text by its index, so that the index need not hold the texts."""
        from datasketch import MinHash, MinHashLSH

        self.threshold, self.text_of = threshold, text_of
        self.index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=WEIGHTS)
        # crc32 is the same in every process; Python's own hash of a text is not. MinHash takes 32 bits.
        self.empty = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=zlib.crc32)

    def minhash(self, text: str) -> Any:
        """The MinHash of a text."""
        found, parts = self.empty.copy(), [run.encode("utf-8", "surrogatepass") for run in shingles(text)]
        for start in range(0, len(parts), BATCH):
            found.update_batch(parts[start : start + BATCH])
        return found

    def match(self, text: str, minhash: Any) -> int | None:
        """The index of the first added text that is similar to `text`; None if there is none."""
        candidates = sorted(self.index.query(minhash))  # a set, whose order may differ from run to run
        return next((one for one in candidates if jaccard(text, self.text_of(one)) >= self.threshold), None)

    def add(self, number: int, minhash: Any) -> None:
        """Add a text by its index and MinHash."""
        self.index.insert(number, minhash)


def near_duplicates_of(texts: list[str], threshold: float, start: int = 0) -> dict[int, int]:
    """For each text from `start` on that is similar to an earlier one that stays, the index of the first such text.

    A text that is removed is not indexed: of three texts in a chain of small changes, the third may stay.
    """
    known = MinHashIndex(threshold, texts.__getitem__)
    found: dict[int, int] = {}
    for row, text in enumerate(tqdm(texts, "near duplicates", unit=" rows", disable=None, leave=False)):
        minhash = known.minhash(text)
        # Rows before `start` are those of other splits, and always stay.
        match = known.match(text, minhash) if row >= start else None
        if match is None:
            known.add(row, minhash)
        else:
            found[row] = match
    return found


def text_roles(roles: dict[str, Column]) -> list[str]:
    """The roles of kind text."""
    return [role for role, spec in roles.items() if spec.kind == "text"]


def without_leaks(train: Table, others: list[Table], roles: dict[str, Column]) -> tuple[Table, list[str]]:
    """Train without the rows whose input is also in `others`, and a note."""
    known = {key for table in others for key in input_keys(table, roles)}
    gone = [row for row, key in enumerate(input_keys(train, roles)) if key in known]
    return _without(train, gone), _note(len(gone), "rows that are also in other splits")


def without_duplicates(train: Table, roles: dict[str, Column], agreeing: bool) -> tuple[Table, list[str]]:
    """Train with only the first row of each input, and notes; `agreeing`: no row of an input with several labels."""
    labels = _labels(train)
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(input_keys(train, roles)):
        groups.setdefault(key, []).append(row)
    repeated: list[int] = []
    contradictory: list[int] = []
    for first, *more in groups.values():
        differ = any(labels[row] != labels[first] for row in more)
        if agreeing and differ:
            # Which label is right cannot be known, so the first row is removed too.
            contradictory += [first, *more]
        else:
            repeated += more
    other = sum(labels[row] != labels[first] for first, *more in groups.values() for row in more)
    notes = _note(len(repeated), "exact duplicates", 0 if agreeing else other)
    return _without(train, repeated + contradictory), notes + _note(
        len(contradictory), "rows of inputs with several labels"
    )


def without_near(
    train: Table, others: list[Table], roles: dict[str, Column], threshold: float
) -> tuple[Table, list[str]]:
    """Train without the rows that are similar to an earlier row that stays, or to a row of `others`, and notes.

    Args:
        threshold: the Jaccard similarity from which two rows are near duplicates, `dataset.clean.near_duplicates`.
    """
    tables = [*others, train]  # train last: a row is compared with those before it only
    texts = [text for table in tables for text in _texts(table, roles)]
    ids = [id for table in tables for id in table.ids]
    labels = [label for table in tables for label in _labels(table)]
    start = len(ids) - len(train)
    found = near_duplicates_of(texts, threshold, start)
    notes: list[str] = []
    for what, leaks in (("rows that are nearly in other splits", True), ("near duplicates", False)):
        pairs = [pair for pair in found.items() if (pair[1] < start) == leaks]
        notes += _note(len(pairs), what, sum(labels[row] != labels[match] for row, match in pairs))
        notes += [f"train: such as {ids[row]}, which is like {ids[match]}" for row, match in pairs[:1]]
    return _without(train, [row - start for row in found]), notes


def _texts(table: Table, roles: dict[str, Column]) -> list[str]:
    columns = [table.columns[role] for role in text_roles(roles) if role in table.columns]
    # Joined by NUL, which no text file may contain, so that `ab` + `c` differs from `a` + `bc`.
    return ["\0".join(text or "" for text in texts) for texts in zip(*columns, strict=True)]


def _labels(table: Table) -> list[object]:
    return table.columns.get("label") or [None] * len(table)


def _note(count: int, what: str, contradictory: int = 0) -> list[str]:
    label = f", {contradictory} of them with another label than the row that stays" if contradictory else ""
    return [f"train: {plural(count, f'{what} were left out')}{label}"] if count else []


def _without(table: Table, rows: list[int]) -> Table:
    gone = set(rows)
    return table.take([row for row in range(len(table)) if row not in gone]) if gone else table
