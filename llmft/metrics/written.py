"""Scores of written answers against the right ones."""

import re
import unicodedata
from typing import Any, ClassVar

import datasets

from llmft.metrics.local import LocalMetric


def normal(answer: str, pattern: str | None = None) -> str:
    """What is compared of an answer: the last match of `pattern`, or all; in NFKC, without case and extra space."""
    found = list(re.finditer(pattern, answer)) if pattern else []
    text = (found[-1][1] or "") if found else answer
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class Written(LocalMetric):
    """The share of answers that are the right one."""

    about = "Exact match of normalised answers."
    columns: ClassVar = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}

    def __init__(self, pattern: str | None = None) -> None:
        """`pattern`: a regular expression for what of an answer counts; see `normal`."""
        self.pattern = pattern
        super().__init__()

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        """`exact_match`, 0 to 1.

        Args:
            predictions: what was written for each row.
            references: the right answer.
        """
        pairs = zip(predictions, references, strict=True)
        right = sum(normal(said, self.pattern) == normal(wanted, self.pattern) for said, wanted in pairs)
        return {"exact_match": right / len(references)}
