"""Scores of translations: BLEU and chrF as sacreBLEU counts them, from 0 to 100."""

import re
from typing import Any, ClassVar

import datasets

from llmft.metrics.local import LocalMetric

# Scripts that are written without spaces between words; kana tells Japanese from Chinese.
_KANA = re.compile(r"[\u3040-\u30ff\u31f0-\u31ff]")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd]")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer
_LETTER = re.compile(r"[^\W\d_]")


class TranslationScores(LocalMetric):
    """`bleu` (Papineni et al. 2002) and `chrf` (Popović 2015) over all rows, each with any number of references.

    `bleu_signature` says how BLEU was counted (Post 2018): scores of two signatures can't be compared.
    """

    about = "BLEU and chrF by sacreBLEU."
    columns: ClassVar = {
        "predictions": datasets.Value("string"),
        "references": datasets.Sequence(datasets.Value("string")),
    }

    def __init__(self, tokenize: str) -> None:
        """`tokenize`: what sacreBLEU takes texts apart with: 13a, zh, char, intl, none."""
        self.tokenize = tokenize
        super().__init__()

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        """Both scores.

        Args:
            predictions: a translation a row.
            references: the right ones of each row, one or more.
        """
        from sacrebleu.metrics import BLEU, CHRF

        most = max(map(len, references))
        streams = [[row[number] if number < len(row) else None for row in references] for number in range(most)]
        bleu = BLEU(tokenize=self.tokenize)
        return {
            "bleu": float(bleu.corpus_score(predictions, streams).score),
            "chrf": float(CHRF().corpus_score(predictions, streams).score),
            "bleu_signature": str(bleu.get_signature()),
        }


def chrf_of(prediction: str, references: list[str]) -> float:
    """The chrF of one translation, 0 to 100."""
    from sacrebleu.metrics import CHRF

    return float(CHRF().sentence_score(prediction, references).score)


def tokenizer_of(texts: list[str]) -> str:
    """Sacrebleu's name of the tokenizer that goes with the script of most letters of `texts`."""
    text = "".join(texts)
    letters, han, kana = (len(kind.findall(text)) for kind in (_LETTER, _HAN, _KANA))
    if 2 * len(_UNSPACED.findall(text)) > letters or (kana > 0.1 * letters and 2 * (han + kana) > letters):
        return "char"
    return "zh" if 2 * han > letters else "13a"
