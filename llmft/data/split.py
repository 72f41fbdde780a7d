"""Shares of the training rows for validation and test: seeded, stratified, and equal rows stay on one side."""

import random
from collections.abc import Sequence


def split(
    keys: Sequence[str], labels: Sequence[str | None] | None, shares: dict[str, float], seed: int
) -> dict[str, list[int]]:
    """Row numbers of `train` and of each share, in their first order.

    Args:
        keys: what the model sees of each row; rows of the same key are never parted, so a split leaks nothing.
        labels: where given, each label's share is kept as near as whole rows allow.
        shares: the part of all rows for each split but `train`.
        seed: of the shuffle.
    """
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    strata: dict[str | None, list[list[int]]] = {}
    for group in groups.values():
        strata.setdefault(labels[group[0]] if labels else None, []).append(group)
    rng = random.Random(seed)
    chosen: dict[str, list[int]] = {name: [] for name in shares}
    train: list[int] = []
    due = dict.fromkeys(shares, 0.0)  # carried from stratum to stratum, so that many small ones round to the right sum
    for label in sorted(strata, key=str):
        stratum = strata[label]
        rng.shuffle(stratum)
        rows = sum(map(len, stratum))
        for name, share in shares.items():
            due[name] += share * rows
            while len(stratum) > 1 and due[name] >= len(stratum[-1]) / 2 and due[name] > 0:
                group = stratum.pop()
                chosen[name] += group
                due[name] -= len(group)
        train += [row for group in stratum for row in group]
    return {"train": sorted(train), **{name: sorted(rows) for name, rows in chosen.items()}}
