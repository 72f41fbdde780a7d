"""Classes: from names to numbers and back, and from scores to answers. Used by every task that chooses one of many."""

import re
from collections.abc import Sequence
from typing import Any

import numpy
from datasets import Dataset

from llmft.data.checks import unknown_labels
from llmft.schema.problem import Problem, UserError
from llmft.tasks.task import Answer


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


def needed(labels: list[str]) -> dict[str, Any]:
    """What the model's configuration must say about the classes."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {n: i for i, n in enumerate(labels)},
    }


def check(rows: Dataset, labels: list[str], split: str) -> list[Problem]:
    """A problem for each class of a split that training did not know."""
    return unknown_labels(rows["id"][:], rows["label"][:], labels, split) if "label" in rows.column_names else []


def decode(outputs: Sequence[numpy.ndarray], labels: list[str]) -> list[Answer]:
    """The likeliest class of each row, with every class's probability (softmax of the logits, in float64)."""
    logits = numpy.asarray(outputs, dtype=numpy.float64)  # (rows, labels)
    powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    best = logits.argmax(axis=1)
    return [
        {
            "answer": labels[winner],
            "scores": {name: float(score) for name, score in zip(labels, row, strict=True)},
        }
        for winner, row in zip(best, shares, strict=True)
    ]


def metrics(answers: list[Answer], references: Dataset, labels: list[str]) -> dict[str, Any]:
    """Accuracy and its companions; see llmft.metrics.classification."""
    from llmft.metrics.classification import Classification  # evaluate imports pipelines, which takes seconds

    return Classification(labels).compute(
        predictions=[answer["answer"] for answer in answers],
        references=references["label"][:],
        scores=[[answer["scores"][name] for name in labels] for answer in answers],
    )
