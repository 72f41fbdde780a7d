"""BLEU and chrF are sacreBLEU's, with the tokenizer that goes with the script."""

import pytest

from llmft.metrics.text_metrics import TranslationScores, chrf_of, tokenizer_of


def test_bleu_by_hand() -> None:
    """Five of six words, three of five pairs, two of four runs of three, one of three of four; one word is missing."""
    said, right = ["the cat sat on a mat"], [["the cat sat on the mat now"]]
    found = TranslationScores("13a").compute(predictions=said, references=right)
    precisions = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert found["bleu"] == pytest.approx(100 * precisions * 2.718281828 ** (1 - 7 / 6), rel=1e-6)
    assert found["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_rows_may_have_unequal_numbers_of_references() -> None:
    said = ["a b c d", "x y z w"]
    few = TranslationScores("13a").compute(predictions=said, references=[["a b c d"], ["x y z"]])
    more = TranslationScores("13a").compute(predictions=said, references=[["a b c d"], ["x y z", "x y z w"]])
    assert few["bleu"] < more["bleu"] == pytest.approx(100)
    assert more["chrf"] == pytest.approx(100)


def test_chinese_is_taken_apart() -> None:
    said, right = ["我昨天买了两个红苹果。"], [["我昨天买了三个红苹果。"]]
    assert TranslationScores("13a").compute(predictions=said, references=right)["bleu"] == pytest.approx(0, abs=1)
    assert TranslationScores("zh").compute(predictions=said, references=right)["bleu"] > 60
    assert 0 < chrf_of(said[0], right[0]) < 100


SCRIPTS = [
    ("A house.", "13a"),
    ("Ένα σπίτι.", "13a"),
    ("집이 하나 있다.", "13a"),
    ("他买了一台 iPad。", "zh"),
    ("家を買いました。", "char"),
    ("ฉันซื้อบ้าน", "char"),
    ("123 !", "13a"),
    ("𠀀𠀁𠀂", "zh"),
]


@pytest.mark.parametrize(("text", "expected"), SCRIPTS)
def test_the_tokenizer_goes_by_the_script(text: str, expected: str) -> None:
    assert tokenizer_of([text, text]) == expected
