"""ROUGE by hand, in any script; of English what rouge-score itself gives."""

import pytest

from llmft.metrics.text_metrics import ROUGE, Rouge, Words, rouge_l_of

ENGLISH = [
    ("The cat sat on the mat.", "A cat sat, on the mat!"),
    ("Prices rose 3.5% in 2020; don't panic", "In 2020 the prices rose by 3.5 percent, do not panic_now"),
    ("", "nothing was said"),
    ("state-of-the-art results", "The state of the art."),
]


@pytest.mark.parametrize(("said", "right"), ENGLISH)
def test_english_scores_are_those_of_the_library(said: str, right: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    expected = RougeScorer(list(ROUGE), use_stemmer=False).score(right, said)
    found = Rouge().compute(predictions=[said], references=[[right]])
    assert found == {name: expected[name].fmeasure for name in ROUGE}


WORDS = [
    ("Café-Bar, 3rd floor", ["café", "bar", "3rd", "floor"]),
    ("我住在北京。OK？", ["我", "住", "在", "北", "京", "ok"]),
    ("カメラを買う", list("カメラを買う")),
    ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
    ("집이 있다", ["집이", "있다"]),
    ("บ้าน", ["บ้", "า", "น"]),
    ("😀 ok_then", ["ok", "then"]),
    ("cafe\u0301", ["cafe\u0301"]),
]


@pytest.mark.parametrize(("text", "expected"), WORDS)
def test_words_of_any_script(text: str, expected: list[str]) -> None:
    assert Words().tokenize(text) == expected


def test_by_hand() -> None:
    """Three of four characters on both sides; two of three pairs; the longest run in common has three."""
    found = Rouge().compute(predictions=["甲乙丙丁"], references=[["甲乙丙戊"]])
    assert found == pytest.approx({"rouge1": 0.75, "rouge2": 2 / 3, "rougeL": 0.75})


def test_the_best_of_several_references_counts_and_rows_are_averaged() -> None:
    references = [["nothing alike", "a b c d"], ["x y"]]
    found = Rouge().compute(predictions=["a b c d", "x z"], references=references)
    assert found == pytest.approx({"rouge1": 0.75, "rouge2": 0.5, "rougeL": 0.75})
    assert rouge_l_of("a b c d", references[0]) == 1
