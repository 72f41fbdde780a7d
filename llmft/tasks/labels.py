"""The names of classes: which there are, what the model must know of them, and how much each counts."""

import re
from collections.abc import Sequence
from typing import Any, Literal

from datasets import Dataset

from llmft.data.checks import few, unknown_labels
from llmft.schema.problem import Problem, UserError
from llmft.schema.target import ProblemType


def learn(labels: Sequence[str], declared: list[str] | None = None) -> list[str]:
    """The classes of the training rows: `declared`, or all that occur, numbers by value and words by alphabet.

    Raises:
        UserError: for fewer than two classes, and for numbers mixed with words unless they are declared.
    """
    found = sorted(set(labels), key=lambda name: (not _is_number(name), float(name) if _is_number(name) else 0.0, name))
    if len(found) < 2 and not declared:
        what = f"train has one label only, {found[0]!r}" if found else "train has no label"
        raise UserError(Problem("dataset.columns.label", f"{what}; a classifier needs two"), "the data")
    words = [name for name in found if not _is_number(name)]
    if not declared and words and len(words) < len(found):
        both = f"{', '.join(found[:3])}, ... and {', '.join(words[:3])}"
        hint = f"If all are classes, list them: task.labels=[{','.join(found[:6])}{',...' if len(found) > 6 else ''}]."
        raise UserError(Problem("dataset.columns.label", f"mixes numbers and words: {both}", hint=hint), "the data")
    return declared or found


def _is_number(name: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?", name))


def needed(labels: list[str], problem: ProblemType) -> dict[str, Any]:
    """What the model's configuration must say about the classes."""
    return {
        "problem_type": f"{problem}_classification",
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {n: i for i, n in enumerate(labels)},
    }


def check(rows: Dataset, labels: list[str], split: str) -> list[Problem]:
    """A problem for each class of a split that training did not know."""
    return unknown_labels(rows["id"][:], rows["label"][:], labels, split) if "label" in rows.column_names else []


def weights(
    labels: list[str], wanted: Literal["balanced"] | dict[str, float] | None, balanced: list[float]
) -> list[float] | None:
    """The weight of each label, or None where all weigh the same.

    Raises:
        UserError: for weights of labels that there are not.
    """
    if not isinstance(wanted, dict):
        return balanced if wanted else None
    if strange := [name for name in wanted if name not in labels]:
        what = f"there is no label {strange[0]!r}"
        raise UserError(Problem("task.class_weights", what, hint=f"They are {few(labels)}."), "the data")
    return [wanted.get(name, 1.0) for name in labels]
