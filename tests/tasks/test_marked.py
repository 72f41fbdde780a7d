"""Two entities of a text, marked in it or given by their characters, and all that can be wrong with that."""

import pytest

from llmft.tasks.text.entity_markers import Marked, Unfit, plain, read

GOOD = [
    ("The <e1>fire</e1> came from <e2>dry straw</e2>.", None, None, "The [fire]₁ came from [dry straw]₂."),
    ("<e2>Straw</e2> fed the <e1>fire</e1>", None, None, "[Straw]₂ fed the [fire]₁"),
    ("<e1>大火</e1>由<e2>闪电</e2>引起。", None, None, "[大火]₁由[闪电]₂引起。"),
    ("👩‍🚒 put out a fire", "[0, 3]", "[14, 18]", "[👩‍🚒]₁ put out a [fire]₂"),
    ("cafe\u0301 serves tea", "[0, 5]", "[13, 16]", "[cafe\u0301]₁ serves [tea]₂"),
    ("tea in a café", "[9, 13]", "[0, 3]", "[tea]₂ in a [café]₁"),
    ("<e1>a</e1><e2>b</e2>", "null", '""', "[a]₁[b]₂"),
    ("ab", "[0, 1]", "[1, 2]", "[a]₁[b]₂"),
]


@pytest.mark.parametrize(("text", "head", "tail", "shown"), GOOD)
def test_two_entities_are_found(text: str, head: str | None, tail: str | None, shown: str) -> None:
    assert str(read(text, head, tail)) == shown


def test_marks_and_characters_say_the_same() -> None:
    by_marks = read("The <e1>fire</e1> came from <e2>straw</e2>.")
    assert (
        by_marks
        == read("The fire came from straw.", "[4, 8]", "[19, 24]")
        == Marked("The fire came from straw.", (4, 8), (19, 24))
    )
    assert plain("a</e2> <e1>b") == "a b"


BAD = [
    ("no marks", None, None, "has no <e1> and no </e1> and no <e2> and no </e2>"),
    ("<e1>a</e1> b</e2>", None, None, "has no <e2>"),
    ("<e1>a <e2>b</e2>", None, None, "has no </e1>"),
    ("<e1>a</e1> <e1>c</e1> <e2>b</e2>", None, None, "has <e1> twice"),
    ("</e1>a<e1> <e2>b</e2>", None, None, "closes e1 before it opens it"),
    ("<e1>a <e2>b</e2></e1>", None, None, "has entities that overlap"),
    ("<e1>a <e2>b</e1> c</e2>", None, None, "has entities that overlap"),
    ("<e1></e1>a <e2>b</e2>", None, None, "has nothing in e1"),
    ("<e1>a</e1> b<e2> </e2>", None, None, "has nothing in e2"),
    ("<e1>a</e1> <e2>b</e2>", "[0, 1]", "[2, 3]", "has marks in its text and head and tail beside it"),
    ("<e1>a</e1> <e2>b</e2>", None, "[2, 3]", "has marks in its text and tail beside it"),
    ("a b", "[0, 1]", None, "has head alone"),
    ("a b", "[0, 1]", "[2, 4]", "has the tail [2, 4], and its text has the characters 0 to 3"),
    ("a b", "[-1, 1]", "[2, 3]", "has the head [-1, 1], and its text has"),
    ("a b", "[1, 0]", "[2, 3]", "has the head [1, 0]"),
    ("a b", "[0]", "[2, 3]", "has the head [0], which is not [start, end]"),
    ("a b", "[0, 1.0]", "[2, 3]", "has the head [0, 1.0], which is not [start, end]"),
    ("a b", "[true, 1]", "[2, 3]", "has the head [true, 1], which is not [start, end]"),
    ("a b", '"0 1"', "[2, 3]", 'has the head "0 1", which is not [start, end]'),
    ("a b", "[]", "[2, 3]", "has the head [], which is not [start, end]"),
    ("a b", "0", "[2, 3]", "has the head 0, which is not [start, end]"),
    ("a b", "7", "[2, 3]", "has the head 7, which is not [start, end]"),
    ("a b", "[0, 0]", "[2, 3]", "has nothing in e1"),
    ("a b", "[0, 1]", "[1, 2]", "has nothing in e2"),
    ("a b", "[0, 2]", "[1, 3]", "has entities that overlap"),
    ("a b", "[0, 3]", "[2, 3]", "has entities that overlap"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "head", "tail", "what"), BAD)
def test_what_is_wrong_with_marks_is_said(text: str, head: str | None, tail: str | None, what: str) -> None:
    with pytest.raises(Unfit) as error:
        read(text, head, tail)
    assert what in str(error.value)
