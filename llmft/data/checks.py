"""Checks of rows that could be read: empty inputs, missing labels, leaks between splits, contradictory labels."""

import json
import re
from collections import Counter
from collections.abc import Container
from functools import partial
from typing import Any

from llmft.data.cell_values import category, classes
from llmft.data.images import content_digest
from llmft.data.source import Table, listed
from llmft.schema.column import Column
from llmft.schema.problem import Problem, plural

DROP_EMPTY = Problem("dataset.drop_empty", "set it to true to leave such rows out", mistakes=0)
DRAWN = 10  # mean rows per distinct input of a table, from which equal rows are separate observations, not copies
DROP_UNLABELED = Problem("dataset.drop_unlabeled", "set it to true to leave rows without a label out", mistakes=0)
SHOWN_LEAKS = 3
TEXTS = ("text", "words", "json")  # kinds of inputs that can be empty
_SPACE = re.compile(r"\s+")


def _normal(value: Any) -> Any:
    if isinstance(value, str):
        return _SPACE.sub(" ", value.casefold()).strip()
    if isinstance(value, dict):
        # The cells of a table row. Sorted by name, since splits may have their columns in different orders.
        return [_normal(category(value[name])) for name in sorted(value)]
    return [_normal(part) for part in value] if isinstance(value, list) else value


def input_keys(table: Table, roles: dict[str, Column]) -> list[str]:
    """A key for each row's inputs, without case and extra space: rows with equal keys have the same input."""
    inputs = [
        list(map(content_digest, table.columns[role])) if spec.kind == "image" else table.columns[role]
        for role, spec in roles.items()
        if spec.is_input and role in table.columns
    ]
    # JSON rather than a tuple: a string is hashable whatever it holds, and it can be kept on disk for streams.
    return [json.dumps([_normal(v) for v in row], ensure_ascii=False, default=str) for row in zip(*inputs, strict=True)]


def are_draws(keys: list[str], roles: dict[str, Column]) -> bool:
    """Whether rows with equal inputs are separate observations rather than copies of one row.

    A table of two columns with two values each has four distinct inputs, however many rows it has. A text that occurs
    in ten rows was copied.

    Args:
        keys: `input_keys` of all rows.
    """
    return any(spec.kind == "features" for spec in roles.values()) and len(keys) >= DRAWN * len(set(keys))


def empty_inputs(table: Table, roles: dict[str, Column]) -> dict[int, str]:
    """What is wrong with each row that has an empty input text, or no image, by row index.

    A missing value of an optional role is reported as one that other rows have: a form of input that was chosen for
    the whole file, such as `prompt` instead of `messages`.
    """
    found: dict[int, str] = {}
    for role, spec in roles.items():
        if spec.kind == "image" and spec.is_input and spec.required and role in table.columns:
            for row in (row for row, cell in enumerate(table.columns[role]) if cell is None):
                found.setdefault(row, f"has no {role}")
        if not spec.is_input or spec.kind not in TEXTS or spec.blank or role not in table.columns:
            continue
        for row, value in enumerate(table.columns[role]):
            if _is_blank(value):
                lacking = value is None and not spec.required
                # setdefault: one reason per row is enough, and the first role is the more important one.
                found.setdefault(row, f"has no {role}, which other rows have" if lacking else "has an empty text")
    return found


def _is_blank(value: str | list[str] | None) -> bool:
    return not (value.strip() if isinstance(value, str) else value)


def empty_targets(table: Table, roles: dict[str, Column]) -> dict[int, str]:
    """What is wrong with each row whose target text is empty, by row index.

    In a conversation, that is a message with neither text nor anything else, such as a tool call.
    """
    found: dict[int, str] = {}
    for role, spec in roles.items():
        if role not in table.columns or spec.blank:
            continue
        if spec.kind == "json":  # a conversation holds its targets among its inputs: checked whatever the role
            empty = _no_message
        elif spec.target and spec.kind in ("text", "texts"):
            empty = partial(_is_empty_target, spec=spec)
        else:
            continue
        for row, value in enumerate(table.columns[role]):
            if empty(value):
                what = "a message without a text" if spec.kind == "json" and value != '""' else f"an empty {role}"
                found.setdefault(row, f"has {what}" if value is not None else f"has no {role}")
    return found


def _no_message(cell: str | None) -> bool:
    """Whether a cell of JSON is an empty text, or a list of messages of which one is empty."""
    value = None if cell is None else json.loads(cell)
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        return isinstance(value, str) and _is_blank(value)
    for message in value:
        # OpenAI's form has role and content, ShareGPT's from and value; "?" leaves an unknown form to the task.
        text = message.get("content", message.get("value", "?"))
        others = {key: part for key, part in message.items() if key not in ("role", "from", "content", "value")}
        if (text is None or text == [] or (isinstance(text, str) and _is_blank(text))) and not any(others.values()):
            return True
    return False


def without_empty(table: Table, roles: dict[str, Column], split: str, drop: bool) -> tuple[Table, list[Problem]]:
    """The rows without empty texts, and a problem for each other row, unless `drop`."""
    gone = empty_targets(table, roles) | empty_inputs(table, roles)
    problems = [] if drop else [Problem(table.ids[row], f"{gone[row]} ({split})") for row in sorted(gone)]
    return table.take([row for row in range(len(table)) if row not in gone]) if gone else table, problems


def without_unlabeled(table: Table, roles: dict[str, Column], split: str, drop: bool) -> tuple[Table, list[Problem]]:
    """The rows with a label, and a problem for each other row, unless `drop`."""
    gone = {
        row: f"has no {role}"
        for role, spec in roles.items()
        if not spec.is_input and spec.required
        for row, value in enumerate(table.columns[role])
        if value is None or (not spec.blank and _is_empty_target(value, spec))
    }
    problems = [] if drop else [Problem(table.ids[row], f"{gone[row]} ({split})") for row in sorted(gone)]
    return table.take([row for row in range(len(table)) if row not in gone]) if gone else table, problems


def complete_rows(
    table: Table, roles: dict[str, Column], split: str, drop_empty: bool, drop_unlabeled: bool
) -> tuple[Table, tuple[list[Problem], list[Problem]], Counter[str]]:
    """The rows that have texts and labels, the problems of the others, and how many rows were dropped.

    Problems of texts and of labels come as two lists: only ten of each kind are shown, and one kind must not hide the
    other.
    """
    filled, problems = without_empty(table, roles, split, drop_empty)
    labeled, more = without_unlabeled(filled, roles, split, drop_unlabeled)
    counts = {
        "rows with an empty text were left out": len(table) - len(filled) if drop_empty else 0,
        "rows without a label were left out": len(filled) - len(labeled) if drop_unlabeled else 0,
    }
    return labeled, (problems, more), Counter({what: count for what, count in counts.items() if count})


def advice(problems: list[Problem], roles: dict[str, Column]) -> list[Problem]:
    """The keys that leave out rows with such problems."""
    # Problems are recognized by their text, since they come from files, streams, and tasks alike.
    labels = [f"has no {role} (" for role, spec in roles.items() if not spec.is_input and not spec.target]
    empty = ("has an empty ", "has a message without a text")
    found = []
    if any(problem.what.startswith(empty) or "which other rows have" in problem.what for problem in problems):
        found.append(DROP_EMPTY)
    if any(problem.what.startswith(tuple(labels)) for problem in problems):
        found.append(DROP_UNLABELED)
    return found


def _is_empty_target(value: Any, spec: Column) -> bool:
    if spec.kind == "texts":
        return not value or any(map(_is_blank, value))
    return spec.kind == "text" and _is_blank(value)


def unknown_labels(table_ids: list[str], labels: list[Any], known: list[str], split: str) -> list[Problem]:
    """A problem for each label that training did not have, at the first row with it."""
    names = set(known)
    first: dict[str, int] = {}
    for row, cell in enumerate(labels):
        for label in classes(cell):
            if label not in names:
                first.setdefault(label, row)
    return listed(
        [
            Problem(table_ids[row], f"must have a label of training ({few(known)}), got {label!r} in {split}")
            for label, row in first.items()
        ]
    )


def few(names: list[str]) -> str:
    """The first ten names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def roles_differ(tables: dict[str, Table], roles: dict[str, Column]) -> list[Problem]:
    """A problem for each optional role, such as `text_pair`, that one split has and another does not."""
    problems = []
    for role, spec in roles.items():
        having = [name for name, table in tables.items() if role in table.columns]
        lacking = [name for name in tables if name not in having]
        if not spec.required and having and lacking:
            what = f"must be in all splits or in none, got it in {', '.join(having)} and not in {', '.join(lacking)}"
            problems.append(Problem(f"dataset.columns.{role}", what))
    return problems


def repeats(keys: list[str], labels: list[Any] | None) -> list[str]:
    """Notes on repeated inputs of train, and on inputs with more than one label."""
    counts = Counter(keys)
    notes = []
    if twice := len(keys) - len(counts):
        notes.append(f"train: {twice} of {len(keys)} rows {'repeats' if twice == 1 else 'repeat'} an earlier input")
    if labels:
        seen: dict[str, set[Any]] = {}
        for key, label in zip(keys, labels, strict=True):
            # A multi-label cell is a list; its order means nothing, and a list cannot be in a set.
            seen.setdefault(key, set()).add(frozenset(label) if isinstance(label, list) else label)
        if contradictory := sum(len(found) > 1 for found in seen.values()):
            notes.append(f"train: {plural(contradictory, 'inputs have')} more than one label")
    return notes


def overlaps(
    keys: dict[str, list[str]],
    sizes: dict[str, int],
    limit: float,
    ids: dict[str, list[str]] | None = None,
    drawn: Container[str] = (),
) -> tuple[list[str], list[Problem]]:
    """Inputs that two splits share: (notes, and problems where they are more than `limit` of the smaller split).

    Args:
        keys: `input_keys` of each split; of a streamed one only those that another split has.
        sizes: the number of rows of each split.
        limit: `dataset.max_overlap`, a share from 0 to 1.
        ids: the ids of the rows, if `keys` are of all rows, to name three of them.
        drawn: the splits that are taken from train, after `dataset.clean` has cleaned it.
    """
    notes, problems = [], []
    names = list(keys)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            # Key to row index. Reversed, so that of equal inputs the first row is kept, and named in the message.
            seen = dict(zip(reversed(keys[first]), reversed(range(len(keys[first]))), strict=True))
            both = [row for row, key in enumerate(keys[second]) if key in seen]
            shared = len(both)
            # Of the smaller split: 50 shared rows are 1% of a large train and half of a test of 100.
            smaller = min(sizes[first], sizes[second])
            if not shared:
                continue
            verb = "is" if shared == 1 else "are"
            text = f"{shared} of the {sizes[second]} rows of {second} {verb} also in {first}"
            # Repeated rows of the larger split can be more than all of the smaller one.
            if limit < 1 and shared > limit * smaller:
                if ids and first in ids and second in ids:
                    rows = [(ids[second][row], ids[first][seen[keys[second][row]]]) for row in both[:SHOWN_LEAKS]]
                    text += f", such as {', '.join(f'{one} ({other})' for one, other in rows)}"
                if taken := next((name for name in (second, first) if name in drawn), None):
                    how = f"dataset.clean.leaks=true leaves them out of train, from which {taken} is taken"
                elif first == "train":
                    how = "dataset.clean.leaks=true leaves them out of train"
                else:
                    how = f"remove them from {first} or {second} (dataset.clean.leaks is for train only)"
                hint = f"Metrics would be too good: {how}, or dataset.max_overlap=1 allows them."
                problems.append(Problem(f"dataset.{second}", text, hint=hint))
            else:
                notes.append(text)
    return notes, problems
