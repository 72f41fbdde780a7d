"""What is wrong with rows that could be read: empty inputs, missing labels, leaks between splits, contradictions."""

import json
import re
from collections import Counter
from functools import partial
from typing import Any

from llmft.data.cell_values import category, classes
from llmft.data.source import Table, listed
from llmft.schema.column import Column
from llmft.schema.problem import Problem, plural

DROP_EMPTY = Problem("dataset.drop_empty", "set it to true to leave such rows out", mistakes=0)
DRAWN = 10  # rows that each input of a table has on average, from which on equal rows are not copies
DROP_UNLABELED = Problem("dataset.drop_unlabeled", "set it to true to leave rows without a label out", mistakes=0)
SHOWN_LEAKS = 3
TEXTS = ("text", "words", "json")  # the kinds of inputs that can be empty
_SPACE = re.compile(r"\s+")


def _normal(value: Any) -> Any:
    if isinstance(value, str):
        return _SPACE.sub(" ", value.casefold()).strip()
    if isinstance(value, dict):
        return [_normal(category(value[name])) for name in sorted(value)]  # columns may stand in any order
    return [_normal(part) for part in value] if isinstance(value, list) else value


def input_keys(table: Table, roles: dict[str, Column]) -> list[str]:
    """What the model sees of each row, without case and extra space: equal keys are the same input."""
    inputs = [table.columns[role] for role, spec in roles.items() if spec.is_input and role in table.columns]
    return [json.dumps([_normal(v) for v in row], ensure_ascii=False, default=str) for row in zip(*inputs, strict=True)]


def are_draws(keys: list[str], roles: dict[str, Column]) -> bool:
    """Whether rows of equal inputs are observations of their own rather than copies of one row.

    A table of two columns with two values each has four different inputs, whatever the number of its rows; a text that
    stands in ten rows was copied.
    """
    return any(spec.kind == "features" for spec in roles.values()) and len(keys) >= DRAWN * len(set(keys))


def empty_inputs(table: Table, roles: dict[str, Column]) -> dict[int, str]:
    """By row number, where a text that the task needs is empty: what is wrong.

    Of a role that rows may do without, such as another form of the same, it is said that other rows have it.
    """
    found: dict[int, str] = {}
    for role, spec in roles.items():
        if not spec.is_input or spec.kind not in TEXTS or spec.blank or role not in table.columns:
            continue
        for row, value in enumerate(table.columns[role]):
            if _is_blank(value):
                lacking = value is None and not spec.required
                found.setdefault(row, f"has no {role}, which other rows have" if lacking else "has an empty text")
    return found


def _is_blank(value: str | list[str] | None) -> bool:
    return not (value.strip() if isinstance(value, str) else value)


def empty_targets(table: Table, roles: dict[str, Column]) -> dict[int, str]:
    """By row number, where a text that the model is to write is empty: what is wrong.

    Of a conversation that is a message without a text and without anything else, such as a call of a tool.
    """
    found: dict[int, str] = {}
    for role, spec in roles.items():
        if role not in table.columns or spec.blank:
            continue
        if spec.kind == "json":
            empty = _no_message
        elif spec.target and spec.kind in ("text", "texts"):
            empty = partial(_says_nothing, spec=spec)
        else:
            continue
        for row, value in enumerate(table.columns[role]):
            if empty(value):
                what = "a message without a text" if spec.kind == "json" and value != '""' else f"an empty {role}"
                found.setdefault(row, f"has {what}" if value is not None else f"has no {role}")
    return found


def _no_message(cell: str | None) -> bool:
    """Whether a cell of JSON is an empty text, or a list of messages one of which says nothing."""
    value = None if cell is None else json.loads(cell)
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        return isinstance(value, str) and _is_blank(value)
    for message in value:
        text = message.get("content", message.get("value", "?"))
        others = {key: part for key, part in message.items() if key not in ("role", "from", "content", "value")}
        if (text is None or text == [] or (isinstance(text, str) and _is_blank(text))) and not any(others.values()):
            return True
    return False


def without_empty(table: Table, roles: dict[str, Column], split: str, drop: bool) -> tuple[Table, list[Problem]]:
    """The rows whose texts are not empty, and, unless they may be dropped, a problem for each that is."""
    gone = empty_targets(table, roles) | empty_inputs(table, roles)
    problems = [] if drop else [Problem(table.ids[row], f"{gone[row]} ({split})") for row in sorted(gone)]
    return table.take([row for row in range(len(table)) if row not in gone]) if gone else table, problems


def without_unlabeled(table: Table, roles: dict[str, Column], split: str, drop: bool) -> tuple[Table, list[Problem]]:
    """The rows that have a label, and, unless they may be dropped, a problem for each that has none."""
    gone = {
        row: f"has no {role}"
        for role, spec in roles.items()
        if not spec.is_input and spec.required
        for row, value in enumerate(table.columns[role])
        if value is None or (not spec.blank and _says_nothing(value, spec))
    }
    problems = [] if drop else [Problem(table.ids[row], f"{gone[row]} ({split})") for row in sorted(gone)]
    return table.take([row for row in range(len(table)) if row not in gone]) if gone else table, problems


def whole_rows(
    table: Table, roles: dict[str, Column], split: str, drop_empty: bool, drop_unlabeled: bool
) -> tuple[Table, tuple[list[Problem], list[Problem]], Counter[str]]:
    """The rows with texts and labels, a problem for each other that may not be dropped, and how many were dropped.

    Problems of texts and of labels are apart, so that of both some are shown.
    """
    filled, problems = without_empty(table, roles, split, drop_empty)
    labeled, more = without_unlabeled(filled, roles, split, drop_unlabeled)
    counts = {
        "rows with an empty text were left out": len(table) - len(filled) if drop_empty else 0,
        "rows without a label were left out": len(filled) - len(labeled) if drop_unlabeled else 0,
    }
    return labeled, (problems, more), Counter({what: count for what, count in counts.items() if count})


def advice(problems: list[Problem], roles: dict[str, Column]) -> list[Problem]:
    """The keys by which rows with such problems are left out."""
    labels = [f"has no {role} (" for role, spec in roles.items() if not spec.is_input and not spec.target]
    empty = ("has an empty ", "has a message without a text")
    found = []
    if any(problem.what.startswith(empty) or "which other rows have" in problem.what for problem in problems):
        found.append(DROP_EMPTY)
    if any(problem.what.startswith(tuple(labels)) for problem in problems):
        found.append(DROP_UNLABELED)
    return found


def _says_nothing(value: Any, spec: Column) -> bool:
    if spec.kind == "texts":
        return not value or any(map(_is_blank, value))
    return spec.kind == "text" and _is_blank(value)


def unknown_labels(table_ids: list[str], labels: list[Any], known: list[str], split: str) -> list[Problem]:
    """A problem for each label that the model has no output for."""
    names = set(known)
    first: dict[str, int] = {}
    for row, cell in enumerate(labels):
        for label in classes(cell):
            if label not in names:
                first.setdefault(label, row)
    return listed(
        [
            Problem(table_ids[row], f"label {label!r} of {split} is not among those of training: {few(known)}")
            for label, row in first.items()
        ]
    )


def few(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def roles_differ(tables: dict[str, Table], roles: dict[str, Column]) -> list[Problem]:
    """A problem for each optional role, such as `text_pair`, that one split fills and another doesn't."""
    problems = []
    for role, spec in roles.items():
        having = [name for name, table in tables.items() if role in table.columns]
        lacking = [name for name in tables if name not in having]
        if not spec.required and having and lacking:
            what = f"{', '.join(having)} fills it and {', '.join(lacking)} does not"
            problems.append(Problem(f"dataset.columns.{role}", what))
    return problems


def repeats(keys: list[str], labels: list[Any] | None) -> list[str]:
    """Notes on inputs that stand twice in one split, and on those with two labels."""
    counts = Counter(keys)
    notes = []
    if twice := len(keys) - len(counts):
        notes.append(f"train: {twice} of {len(keys)} rows {'repeats' if twice == 1 else 'repeat'} an earlier input")
    if labels:
        seen: dict[str, set[Any]] = {}
        for key, label in zip(keys, labels, strict=True):
            seen.setdefault(key, set()).add(frozenset(label) if isinstance(label, list) else label)
        if torn := sum(len(found) > 1 for found in seen.values()):
            notes.append(f"train: {plural(torn, 'inputs have')} more than one label")
    return notes


def overlaps(
    keys: dict[str, list[str]], sizes: dict[str, int], limit: float, ids: dict[str, list[str]] | None = None
) -> tuple[list[str], list[Problem]]:
    """Rows of one split whose input also stands in another: (notes, problems for shares above `limit`).

    Args:
        keys: of each split; of a streamed one only those that stand in another.
        sizes: the rows of each split.
        ids: what the rows are called, where `keys` are of all of them.
    """
    notes, problems = [], []
    names = list(keys)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            seen = dict(zip(reversed(keys[first]), reversed(range(len(keys[first]))), strict=True))
            both = [row for row, key in enumerate(keys[second]) if key in seen]
            shared = len(both)
            smaller = min(sizes[first], sizes[second])
            if not shared:
                continue
            verb = "is" if shared == 1 else "are"
            text = f"{shared} of the {sizes[second]} rows of {second} {verb} also in {first}"
            if shared > limit * smaller:
                if ids and first in ids and second in ids:
                    rows = [(ids[second][row], ids[first][seen[keys[second][row]]]) for row in both[:SHOWN_LEAKS]]
                    text += f", such as {', '.join(f'{one} ({other})' for one, other in rows)}"
                problems.append(
                    Problem(
                        f"dataset.{second}",
                        text,
                        hint="Scores would flatter the model: "
                        + (
                            "dataset.clean.leaks=true leaves them out of train, "
                            if first == "train"
                            else f"take them out of {first} or {second} (dataset.clean.leaks mends train alone), "
                        )
                        + "or dataset.max_overlap=1 allows them.",
                    )
                )
            else:
                notes.append(text)
    return notes, problems
