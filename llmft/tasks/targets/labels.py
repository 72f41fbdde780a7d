"""The names of classes: learning them, their part of the model's configuration, their weights, and notes on them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from llmft.data.cell_values import classes
from llmft.data.checks import few, unknown_labels
from llmft.data.source import Rows
from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.targets.config import ProblemType, TargetConfig

SHOWN = 8  # labels whose rows a note counts: more would not fit in two lines of a terminal
UNEVEN = 10  # from this ratio of the largest to the smallest class, a note suggests class weights
SEPARATORS = "|;,、，；"  # what people write between labels


def learn(labels: Sequence[str], declared: list[str] | None = None) -> list[str]:
    """The classes of the training rows: `declared`, or all that occur; numbers in order of value, words by code point.

    Raises:
        UserError: for fewer than two classes, and for numbers mixed with words that are not declared.
    """
    # Sorted, so that ids do not depend on the order of rows; by value, so that 10 comes after 9.
    found = sorted(set(labels), key=lambda name: (not _is_number(name), float(name) if _is_number(name) else 0.0, name))
    if len(found) < 2 and not declared:
        what = f"train has one label only, {found[0]!r}" if found else "train has no label"
        raise UserError(Problem("dataset.columns.label", f"{what}; a classifier needs two"), "the data")
    # Numbers with a few words are most often a column of numbers with an unknown mark for missing values.
    words = [name for name in found if not _is_number(name)]
    if not declared and words and len(words) < len(found):
        both = f"{', '.join(found[:3])}, ... and {', '.join(words[:3])}"
        hint = f"If all are classes, list them: task.labels=[{','.join(found[:6])}{',...' if len(found) > 6 else ''}]."
        raise UserError(Problem("dataset.columns.label", f"mixes numbers and words: {both}", hint=hint), "the data")
    return declared or found


def _is_number(name: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?", name))


def model_kwargs(labels: list[str], problem: ProblemType) -> dict[str, Any]:
    """The model's configuration of these classes, by the names that transformers has."""
    return {
        "problem_type": f"{problem}_classification",
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {n: i for i, n in enumerate(labels)},
    }


def check(rows: Rows, labels: list[str], split: str) -> list[Problem]:
    """A problem for each class of a split that training did not have."""
    return unknown_labels(rows["id"][:], rows["label"][:], labels, split) if "label" in rows.column_names else []


def notes(cells: Sequence[Any], labels: list[str], options: TargetConfig) -> list[str]:
    """Notes on the labels of the training rows: how many rows each has, and what looks like a mistake.

    Args:
        cells: of each row, its class or a list of its classes.
    """
    counts = Counter(name for cell in cells for name in classes(cell))
    shown = [f"{name} {count:,}" for name, count in counts.most_common(SHOWN)]
    rest = (
        f", and {plural(len(counts) - SHOWN, 'others')} down to {min(counts.values()):,}" if len(counts) > SHOWN else ""
    )
    found = [f"train: rows by label: {', '.join(shown)}{rest}"]
    if bare := sum(not classes(cell) for cell in cells):
        found[0] += f"; without a label {bare:,}"
    if unused := [name for name in labels if name not in counts]:
        found.append(f"train: no row has the label {few(unused)}, which task.labels declares")
    most, least = max(counts.values(), default=0), min(counts.values(), default=0)
    if most >= UNEVEN * least > 0 and options.class_weights is None:
        what = f"the most frequent label has {most / least:.0f} times the rows of the rarest"
        found.append(f"train: {what}; task.class_weights=balanced lets all labels count alike")
    # Labels that differ in case or width alone are most often typing mistakes, and split a class in two.
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(" ".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    for twins in alike.values():
        if len(twins) > 1:
            each = " and ".join(f"{name!r} ({plural(counts[name], 'rows')})" for name in twins)
            found.append(f"train: labels that differ only in case or spaces: {each}")
    return found + _joined(counts, options)


def _joined(counts: Counter[str], options: TargetConfig) -> list[str]:
    """A note if labels look like lists: `a;b`, with parts that occur in several labels."""
    if all(name.startswith("[") and name.endswith("]") for name in counts):
        return [f"train: all labels look like lists, such as {next(iter(counts))}: is task.problem=multi_label meant?"]
    for sign in SEPARATORS:
        joined = [name for name in counts if sign in name.strip(sign)]
        parts = Counter(part.strip() for name in counts for part in name.split(sign))
        own = {part.strip() for name in joined for part in name.split(sign)}
        # Half of the parts must occur again, else the character is part of the names, as in `AC/DC, live`.
        if len(joined) < 2 or 2 * sum(parts[part] > 1 for part in own) < len(own):
            continue
        problem = "" if options.problem == "multi_label" else "task.problem=multi_label "
        what = f"{len(joined)} of {len(counts)} labels hold {sign!r}, such as {joined[0]!r}"
        return [f"train: {what}: is {problem}task.separator='{sign}' meant?"]
    return []


def weights(
    labels: list[str], wanted: Literal["balanced"] | dict[str, float] | None, balanced: list[float]
) -> list[float] | None:
    """The weight of each label, or None if all have the same.

    Args:
        wanted: `task.class_weights`.
        balanced: the weights for `balanced`.

    Raises:
        UserError: for weights of labels that do not exist.
    """
    if not isinstance(wanted, dict):
        return balanced if wanted else None
    if strange := [name for name in wanted if name not in labels]:
        what = f"there is no label {strange[0]!r}"
        raise UserError(Problem("task.class_weights", what, hint=f"They are {few(labels)}."), "the data")
    return [wanted.get(name, 1.0) for name in labels]
