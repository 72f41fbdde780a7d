"""ROUGE: the words and runs of words that a summary shares with a right one, in any script."""

from typing import Any, ClassVar

import datasets
import regex

from llmft.metrics.local import LocalMetric

NAMES = ("rouge1", "rouge2", "rougeL")

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
# A letter of a script without spaces with the marks on it; else a run of letters, marks and digits.
_WORD = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{N}}\p{{M}}]--[{_UNSPACED}]]*",
    regex.V1,
)


class Words:
    """What rouge-score asks to take a text into words.

    Its own drops whatever is not a-z or 0-9, so that Chinese would score 0 and `café` would be `caf`. Of English, the
    words are the same, without its stemmer.
    """

    def tokenize(self, text: str) -> list[str]:
        """The words of a text in small letters; of scripts without spaces, the letters."""
        return _WORD.findall(text.lower())


class Rouge(LocalMetric):
    """The F-measures of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), 0 to 1: means over rows.

    Of several references the one counts that fits best.
    """

    about = "ROUGE-1, ROUGE-2 and ROUGE-L by rouge-score, with words of any script."
    columns: ClassVar = {
        "predictions": datasets.Value("string"),
        "references": datasets.Sequence(datasets.Value("string")),
    }

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        """All three.

        Args:
            predictions: a summary a row.
            references: the right ones of each row, one or more.
        """
        scorer = _scorer(NAMES)
        rows = [scorer.score_multi(right, said) for said, right in zip(predictions, references, strict=True)]
        return {name: sum(row[name].fmeasure for row in rows) / len(rows) for name in NAMES}


def rouge_l_of(prediction: str, references: list[str]) -> float:
    """The ROUGE-L of one summary, 0 to 1."""
    return float(_scorer(("rougeL",)).score_multi(references, prediction)["rougeL"].fmeasure)


def _scorer(names: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(names), tokenizer=Words())
