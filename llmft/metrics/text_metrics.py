"""Metrics of texts against references: exact match and F1 of answers, ROUGE, BLEU and chrF.

All of them read any script: where words are not parted by spaces, a letter counts as a word.
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

# What SQuAD leaves out: articles and ASCII punctuation; and what Chinese and Japanese have in place of the latter.
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WIDE = "".join(map(chr, [*range(0x3001, 0x3004), *range(0x3008, 0x3012), *range(0x3014, 0x3020), 0x30FB]))
_WIDE += "".join(chr(code) for code in range(0xFF01, 0xFF66) if not chr(code).isalnum())
_PUNCTUATION = str.maketrans("", "", string.punctuation + _WIDE)
# Han and kana, of which a letter counts as a word, as CMRC 2018 has it.
_HAN_OR_KANA = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)

ROUGE = ("rouge1", "rouge2", "rougeL")
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
# A letter of a script without spaces with the marks on it; else a run of letters, marks and digits.
_WORD = regex.compile(
    rf"[{_SPACELESS}]\p{{M}}*|[[\p{{L}}\p{{N}}]--[{_SPACELESS}]][[\p{{L}}\p{{N}}\p{{M}}]--[{_SPACELESS}]]*",
    regex.V1,
)

# Scripts by which sacreBLEU's tokenizer is chosen; kana tells Japanese from Chinese.
_KANA = re.compile(r"[\u3040-\u30ff\u31f0-\u31ff]")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd]")
_THAI_LIKE = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer
_LETTER = re.compile(r"[^\W\d_]")


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


def normalised(text: str) -> str:
    """A text without case, punctuation, English articles and extra space, as SQuAD's evaluation script has it."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def words(text: str) -> list[str]:
    """The words of a normalised text; of Chinese and Japanese, its letters."""
    return _HAN_OR_KANA.sub(r" \g<0> ", normalised(text)).split()


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
    is not an article. If some rows have a right answer and others none, `has_answer_` and `no_answer_` scores tell
    them apart.
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
        scorer = _scorer(ROUGE)
        rows = [scorer.score_multi(right, said) for said, right in zip(predictions, references, strict=True)]
        return {name: sum(row[name].fmeasure for row in rows) / len(rows) for name in ROUGE}


def rouge_l_of(prediction: str, references: list[str]) -> float:
    """The ROUGE-L of one summary, 0 to 1."""
    return float(_scorer(("rougeL",)).score_multi(references, prediction)["rougeL"].fmeasure)


def _scorer(names: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(names), tokenizer=Words())


class TranslationScores(LocalMetric):
    """`bleu` (Papineni et al. 2002) and `chrf` (Popović 2015) over all rows, each with any number of references.

    `bleu_signature` says how BLEU was counted (Post 2018): scores of two signatures cannot be compared.
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
    if 2 * len(_THAI_LIKE.findall(text)) > letters or (kana > 0.1 * letters and 2 * (han + kana) > letters):
        return "char"
    return "zh" if 2 * han > letters else "13a"
