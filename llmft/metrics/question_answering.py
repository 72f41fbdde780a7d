"""Answers that are parts of a text against the right ones, as SQuAD scores them."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets

from llmft.metrics.local import LocalMetric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# Scripts without spaces between words: Han and kana. A letter counts as a word there, as CMRC 2018 has it.
_LETTER = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)
# SQuAD leaves ASCII punctuation out; this is what Chinese and Japanese have in its place.
_WIDE = "".join(map(chr, [*range(0x3001, 0x3004), *range(0x3008, 0x3012), *range(0x3014, 0x3020), 0x30FB]))
_WIDE += "".join(chr(code) for code in range(0xFF01, 0xFF66) if not chr(code).isalnum())
_PUNCTUATION = str.maketrans("", "", string.punctuation + _WIDE)


def normalised(text: str) -> str:
    """A text without case, punctuation, English articles and extra space, as SQuAD's evaluation script has it."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def words(text: str) -> list[str]:
    """The words of a normalised text; of Chinese and Japanese, its letters."""
    return _LETTER.sub(r" \g<0> ", normalised(text)).split()


def exact_match(said: str, right: Sequence[str]) -> float:
    """1 where an answer is one of the right ones, or where both are empty, else 0."""
    return float(any(normalised(said) == normalised(one) for one in right or [""]))


def f1(said: str, right: Sequence[str]) -> float:
    """The best F1 of the words of an answer and of a right one. Where one of two is empty, 1 if both are, else 0."""
    return max(_f1(words(said), words(one)) for one in right or [""])


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    common = sum((Counter(said) & Counter(right)).values())
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(right)
    return 2 * precision * recall / (precision + recall)


class SpanAnswers(LocalMetric):
    """`exact_match` and `f1` in shares of 1, each the mean over rows of the best over the right answers of a row.

    By the evaluation script of SQuAD 2.0, which gives what that of 1.1 gives wherever each right answer has a word that
    is no article. Where some rows have a right answer and others none, `has_answer_` and `no_answer_` scores tell them
    apart.
    """

    about = "Exact match and F1 of answers that are parts of a text, as SQuAD has them."
    columns: ClassVar = {
        "predictions": datasets.Value("string"),
        "references": datasets.Sequence(datasets.Value("string")),
    }

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        # A right answer that is nothing but an article or punctuation is none.
        right = [[text for text in texts if normalised(text)] for texts in references]
        rows = list(zip(predictions, right, strict=True))
        exact = [exact_match(*row) for row in rows]
        share = [f1(*row) for row in rows]
        found = {"exact_match": _mean(exact), "f1": _mean(share)}
        kinds = {"has_answer": [bool(texts) for texts in right], "no_answer": [not texts for texts in right]}
        if all(map(any, kinds.values())):
            for kind, chosen in kinds.items():
                for name, values in (("exact_match", exact), ("f1", share)):
                    own = [value for value, of_kind in zip(values, chosen, strict=True) if of_kind]
                    found[f"{kind}_{name}"] = _mean(own)
        return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
