"""What the user types is what the configuration holds, in any script."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.config.load import load
from llmft.config.words import parse
from llmft.schema.problem import UserError

VALUES = [
    "评论.csv",
    "it's",
    "train(1).csv",
    "a=b",
    "~/x",
    "café",
    "a b",
    "#1",
    "a;b",
    "a&b",
    "x,y.csv",
    "001",
    "0007",
    "C:\\data\\mine.csv",
    "back\\",
    "back\\'",
    "отзывы.tsv",
    "レビュー",
    "?",
    "!x",
    "%d",
    "@home",
    "https://x.org/?a=1&b=2",
    "$HOME",
    "[open",
    "close]",
    "{a",
    "a:b",
    "100%",
    "NA",
    "don't 'quote' me",
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_arrives_as_it_was_typed(value: str) -> None:
    assert load("finetune", ["dataset=csv", f"dataset.train={value}"]).dataset.train == value


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("[a.csv,b.csv]", ["a.csv", "b.csv"]),
        ("[评论.csv, it's.csv]", ["评论.csv", "it's.csv"]),
        ("[a b,x=y]", ["a b", "x=y"]),
    ],
)
def test_lists_may_hold_any_text(typed: str, meant: list[str]) -> None:
    assert load("finetune", ["dataset=csv", f"dataset.train={typed}"]).dataset.train == meant


SPECIAL = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="[{$'\"\\,")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("{text: 内容, label: 类别}", {"text": "内容", "label": "类别"}),
        ("{text:a b,label:it's}", {"text": "a b", "label": "it's"}),
        ("{features:[年龄, x y],label:001}", {"features": ["年龄", "x y"], "label": "001"}),
        ("{text: a:b}", {"text": "a:b"}),
    ],
)
def test_tables_may_hold_any_text(typed: str, meant: dict[str, object]) -> None:
    assert load("finetune", [f"dataset.columns={typed}"]).dataset.columns == meant


@settings(max_examples=300, deadline=None)
@given(st.text(SPECIAL, min_size=1, max_size=12).filter(lambda text: text == text.strip()))
def test_any_text_survives_hydras_grammar(text: str) -> None:
    """Property: the value is the text itself, or what Hydra reads as a number, a truth or null."""
    value = parse([f"dataset.name={text}"])[0].value()
    assert value == text or str(value).lower() == text.lower() or isinstance(value, int | float | None | bool)


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.sampled_from("a'\"\\ ,=[]{}()评"), min_size=1, max_size=8).filter(
        lambda t: t == t.strip() and t[0] not in "[{\"'"
    )
)
def test_quotes_and_backslashes_survive(text: str) -> None:
    assert parse([f"dataset.name={text}"])[0].value() == text


def test_a_word_without_a_value_is_refused() -> None:
    with pytest.raises(UserError, match="is no KEY=VALUE"):
        parse(["nonsense words"])
