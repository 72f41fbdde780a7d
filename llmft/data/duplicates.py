"""Rows of `train` that repeat others, exactly or nearly: left out, and counted by how their labels go together.

Texts are nearly the same by the runs of characters that they share, so no language needs to be known.
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
    # At least one run, also of an empty text, so that `likeness` never divides by zero.
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
        # crc32 is the same in every process, as Python's `hash` of a text is not. Its 32 bits are what MinHash takes.
        self.empty = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=zlib.crc32)

    def hashed(self, text: str) -> Any:
        """The MinHash of a text."""
        found, parts = self.empty.copy(), [run.encode("utf-8", "surrogatepass") for run in runs(text)]
        for start in range(0, len(parts), BATCH):
            found.update_batch(parts[start : start + BATCH])
        return found

    def twin(self, text: str, hashed: Any) -> int | None:
        """The first text that was added and is like `text`."""
        candidates = sorted(self.index.query(hashed))  # a set, whose order may differ from run to run
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
        # Rows before `start` are those of other splits, which stay whatever they are like.
        twin = known.twin(text, hashed) if row >= start else None
        if twin is None:
            known.add(row, hashed)
        else:
            found[row] = twin
    return found


def text_roles(roles: dict[str, Column]) -> list[str]:
    """The roles that are texts."""
    return [role for role, spec in roles.items() if spec.kind == "text"]


def without_leaks(train: Table, others: list[Table], roles: dict[str, Column]) -> tuple[Table, list[str]]:
    """The rows whose input is in none of `others`."""
    known = {key for table in others for key in input_keys(table, roles)}
    gone = [row for row, key in enumerate(input_keys(train, roles)) if key in known]
    return _without(train, gone), _note(len(gone), "rows that are also in other splits")


def without_duplicates(train: Table, roles: dict[str, Column], agreeing: bool) -> tuple[Table, list[str]]:
    """The first row of each input; `agreeing`: none of an input that has several labels."""
    labels = _labels(train)
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(input_keys(train, roles)):
        groups.setdefault(key, []).append(row)
    again: list[int] = []
    torn: list[int] = []
    for first, *more in groups.values():
        differ = any(labels[row] != labels[first] for row in more)
        if agreeing and differ:
            # Nobody knows which of the labels is right, so the first row goes too.
            torn += [first, *more]
        else:
            again += more
    other = sum(labels[row] != labels[first] for first, *more in groups.values() for row in more)
    notes = _note(len(again), "exact duplicates", 0 if agreeing else other)
    return _without(train, again + torn), notes + _note(len(torn), "rows of inputs with several labels")


def without_near(
    train: Table, others: list[Table], roles: dict[str, Column], threshold: float
) -> tuple[Table, list[str]]:
    """The rows whose texts are like those of no earlier row that stays, and of no row of `others`."""
    tables = [*others, train]  # train last: a row is compared with those before it alone
    texts = [text for table in tables for text in _texts(table, roles)]
    ids = [id for table in tables for id in table.ids]
    labels = [label for table in tables for label in _labels(table)]
    start = len(ids) - len(train)
    found = near(texts, threshold, start)
    notes: list[str] = []
    for what, leaks in (("rows that are nearly in other splits", True), ("near duplicates", False)):
        pairs = [pair for pair in found.items() if (pair[1] < start) == leaks]
        notes += _note(len(pairs), what, sum(labels[row] != labels[twin] for row, twin in pairs))
        notes += [f"train: such as {ids[row]}, which is like {ids[twin]}" for row, twin in pairs[:1]]
    return _without(train, [row - start for row in found]), notes


def _texts(table: Table, roles: dict[str, Column]) -> list[str]:
    columns = [table.columns[role] for role in text_roles(roles) if role in table.columns]
    # Parted by a character that text files may not hold, so that `ab` and `c` differ from `a` and `bc`.
    return ["\0".join(text or "" for text in texts) for texts in zip(*columns, strict=True)]


def _labels(table: Table) -> list[object]:
    return table.columns.get("label") or [None] * len(table)


def _note(count: int, what: str, torn: int = 0) -> list[str]:
    label = f", {torn} of them with another label than the row that stays" if torn else ""
    return [f"train: {plural(count, f'{what} were left out')}{label}"] if count else []


def _without(table: Table, rows: list[int]) -> Table:
    gone = set(rows)
    return table.take([row for row in range(len(table)) if row not in gone]) if gone else table
