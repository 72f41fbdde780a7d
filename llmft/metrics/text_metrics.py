"""Metrics of texts against references: exact match and F1 of answers, ROUGE, BLEU, and chrF.

All work in any script: where words are not separated by spaces, each character counts as a word.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import regex

from llmft.metrics.local import LocalMetric

# What SQuAD's script removes, articles and ASCII punctuation, and the punctuation of Chinese and Japanese.
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WIDE = "".join(map(chr, [*range(0x3001, 0x3004), *range(0x3008, 0x3012), *range(0x3014, 0x3020), 0x30FB]))
_WIDE += "".join(chr(code) for code in range(0xFF01, 0xFF66) if not chr(code).isalnum())
_PUNCTUATION = str.maketrans("", "", string.punctuation + _WIDE)
# Han and kana: each character counts as a word, as in the script of CMRC 2018.
_HAN_OR_KANA = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)

ROUGE = ("rouge1", "rouge2", "rougeL")
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
# A character of a script without spaces, with its marks; else a run of letters, marks, and digits.
_WORD = regex.compile(
    rf"[{_SPACELESS}]\p{{M}}*|[[\p{{L}}\p{{N}}]--[{_SPACELESS}]][[\p{{L}}\p{{N}}\p{{M}}]--[{_SPACELESS}]]*",
    regex.V1,
)

# Scripts that decide sacreBLEU's tokenizer. Kana distinguishes Japanese from Chinese.
_KANA = re.compile(r"[\u3040-\u30ff\u31f0-\u31ff]")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd]")
_THAI_LIKE = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer
_LETTER = re.compile(r"[^\W\d_]")


def normalize_answer(answer: str, pattern: str | None = None) -> str:
    """What is compared of an answer: group 1 of the last match of `pattern`, or all; NFKC, no case, no extra space.

    The last match, since a model that reasons in steps states its answer at the end.
    """
    found = list(re.finditer(pattern, answer)) if pattern else []
    text = (found[-1][1] or "") if found else answer
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class Written(LocalMetric):
    """Exact match of written answers."""

    about = "Exact match of normalized answers."
    columns: ClassVar = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}

    def __init__(self, pattern: str | None = None) -> None:
        """`pattern`: a regular expression for the part of an answer that counts; see `normalize_answer`."""
        self.pattern = pattern
        super().__init__()

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        """`exact_match`, 0 to 1.

        Args:
            predictions: the generated text of each row.
            references: the right answer.
        """
        pairs = zip(predictions, references, strict=True)
        right = sum(
            normalize_answer(predicted, self.pattern) == normalize_answer(wanted, self.pattern)
            for predicted, wanted in pairs
        )
        return {"exact_match": right / len(references)}


def normalize_text(text: str) -> str:
    """A text without case, punctuation, English articles, and extra space, as in SQuAD's script."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def words(text: str) -> list[str]:
    """The words of a normalized text; in Chinese and Japanese, its characters."""
    return _HAN_OR_KANA.sub(r" \g<0> ", normalize_text(text)).split()


def exact_match(predicted: str, right: Sequence[str]) -> float:
    """1 if an answer equals one of the references, or if both are empty, else 0."""
    return float(any(normalize_text(predicted) == normalize_text(one) for one in right or [""]))


def f1(predicted: str, right: Sequence[str]) -> float:
    """The highest F1 of the words of an answer and of a reference. If one of them is empty: 1 if both are, else 0."""
    return max(_f1(words(predicted), words(one)) for one in right or [""])


def _f1(predicted: list[str], right: list[str]) -> float:
    if not predicted or not right:
        return float(predicted == right)
    common = sum((Counter(predicted) & Counter(right)).values())
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(right)
    return 2 * precision * recall / (precision + recall)


class SpanAnswers(LocalMetric):
    """`exact_match` and `f1`, 0 to 1: means over rows of the best value over the references of a row.

    As in the evaluation script of SQuAD 2.0, which agrees with that of 1.1 whenever each reference has a word that is
    not an article. If some rows have a reference and others none, there are `has_answer_` and `no_answer_` metrics too.
    """

    about = "Exact match and F1 of answers that are parts of a text, as SQuAD has them."
    columns: ClassVar = {
        "predictions": datasets.Value("string"),
        "references": datasets.Sequence(datasets.Value("string")),
    }

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        # A reference of only articles or punctuation counts as none.
        right = [[text for text in texts if normalize_text(text)] for texts in references]
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


class Words:
    """The tokenizer for rouge-score.

    rouge-score's own drops everything but a-z and 0-9, so Chinese would score 0, and `café` would be `caf`. For English
    both give the same words; the stemmer is not used.
    """

    def tokenize(self, text: str) -> list[str]:
        """The lower-case words of a text; in scripts without spaces, the characters."""
        return _WORD.findall(text.lower())


class Rouge(LocalMetric):
    """The F-measures of ROUGE-1, ROUGE-2, and ROUGE-L (Lin 2004), 0 to 1: means over rows of the best reference."""

    about = "ROUGE-1, ROUGE-2 and ROUGE-L by rouge-score, with words of any script."
    columns: ClassVar = {
        "predictions": datasets.Value("string"),
        "references": datasets.Sequence(datasets.Value("string")),
    }

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        """All three metrics.

        Args:
            predictions: the summary of each row.
            references: one or more references of each row.
        """
        scorer = _scorer(ROUGE)
        rows = [scorer.score_multi(right, predicted) for predicted, right in zip(predictions, references, strict=True)]
        return {name: sum(row[name].fmeasure for row in rows) / len(rows) for name in ROUGE}


def rouge_l_of(prediction: str, references: list[str]) -> float:
    """The ROUGE-L of one summary, 0 to 1."""
    return float(_scorer(("rougeL",)).score_multi(references, prediction)["rougeL"].fmeasure)


def _scorer(names: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(names), tokenizer=Words())


class TranslationScores(LocalMetric):
    """`bleu` (Papineni et al. 2002) and `chrf` (Popović 2015), 0 to 100, over the corpus, with one or more references.

    `bleu_signature` states how BLEU was computed (Post 2018); values with different signatures cannot be compared.
    """

    about = "BLEU and chrF by sacreBLEU."
    columns: ClassVar = {
        "predictions": datasets.Value("string"),
        "references": datasets.Sequence(datasets.Value("string")),
    }

    def __init__(self, tokenize: str) -> None:
        """`tokenize`: sacreBLEU's tokenizer: 13a, zh, char, intl, or none."""
        self.tokenize = tokenize
        super().__init__()

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        """Both metrics and the signature.

        Args:
            predictions: the translation of each row.
            references: one or more references of each row.
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
    """The name of sacreBLEU's tokenizer for the script of most letters in `texts`."""
    text = "".join(texts)
    letters, han, kana = (len(kind.findall(text)) for kind in (_LETTER, _HAN, _KANA))
    if 2 * len(_THAI_LIKE.findall(text)) > letters or (kana > 0.1 * letters and 2 * (han + kana) > letters):
        return "char"
    return "zh" if 2 * han > letters else "13a"
