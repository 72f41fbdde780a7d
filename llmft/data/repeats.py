"""Rows of `train` that repeat others: left out, and counted by how their labels go together."""

from llmft.data.checks import input_keys
from llmft.data.near import near
from llmft.data.table import Table
from llmft.schema.column import Column
from llmft.schema.problem import plural


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
    tables = [*others, train]
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
    return ["\0".join(text or "" for text in texts) for texts in zip(*columns, strict=True)]


def _labels(table: Table) -> list[object]:
    return table.columns.get("label") or [None] * len(table)


def _note(count: int, what: str, torn: int = 0) -> list[str]:
    label = f", {torn} of them with another label than the row that stays" if torn else ""
    return [f"train: {plural(count, f'{what} were left out')}{label}"] if count else []


def _without(table: Table, rows: list[int]) -> Table:
    gone = set(rows)
    return table.take([row for row in range(len(table)) if row not in gone]) if gone else table
