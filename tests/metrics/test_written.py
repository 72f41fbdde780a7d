"""Exact match, against values worked out by hand."""

import pytest

from llmft.metrics.text_metrics import Written, normalize_answer


@pytest.mark.parametrize(
    ("answer", "pattern", "found"),
    [
        ("  Two\n words ", None, "two words"),
        ("ＡＢＣ　①", None, "abc 1"),
        ("Straße 你好 😀", None, "strasse 你好 😀"),
        ("3 + 4 = 7\n#### 7", "#### (.+)", "7"),
        ("#### 1\n#### 2", "#### (.+)", "2"),
        ("no number", "#### (.+)", "no number"),
        ("x", "(y)?x", ""),
    ],
)
def test_what_is_compared_of_an_answer(answer: str, pattern: str | None, found: str) -> None:
    assert normalize_answer(answer, pattern) == found


def test_exact_match_is_the_share_of_right_answers() -> None:
    said, right = ["So #### 7", "#### 8", "你好", ""], ["#### 7", "#### 9", " 你好", "a"]
    assert Written("#### (.+)").compute(predictions=said, references=right) == {"exact_match": 0.5}
    assert Written().compute(predictions=said, references=right) == {"exact_match": 0.25}
