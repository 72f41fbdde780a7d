"""What the user types is what the configuration holds, in any script."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.config.compose import compose
from llmft.config.load import load
from llmft.config.overrides import parse
from llmft.runs.folder import Run
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
    "${price}.csv",
    "a${optimizer.lr}",
    "\\\\${x}",
    "true",
    "1e3",
    "2024",
    "1_000",
    "0x10",
    "inf",
    "{a: b}",
    "choice(a)",
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
    with pytest.raises(UserError, match="is not KEY=VALUE"):
        parse(["nonsense words"])


@pytest.mark.parametrize(
    "text", ["I paid ${price} for it", "null", "${model.name} was great", "True", "[1, 2]", "{a}", "x,y", "a=b", "1e3", "'"]
)  # fmt: skip
def test_a_text_is_a_text(text: str) -> None:
    assert typed(f"predict.text={text}") == {"text": text}


@pytest.mark.parametrize(
    ("row", "meant"),
    [
        ("{age: 39, job: clerk}", {"age": "39", "job": "clerk"}),
        ("{note: I paid ${price}, n: 1_01, flag: true, gone: null}", {"note": "I paid ${price}", "n": "1_01", "flag": "true", "gone": None}),
        ("{系统: x, area m2: 100}", {"系统": "x", "area m2": "100"}),
        ("{'姓': a, \"b c\": 007}", {"姓": "a", "b c": "007"}),
        ('{"area m2": 100, "ok": true, "none": null, "t": "null ${x} \\"q\\" \\n", "l": [1, "2"]}',
         {"area m2": 100, "ok": True, "none": None, "t": 'null ${x} "q" \n', "l": [1, "2"]}),
        ("{tokens: [a, null, 1.0], 'null': x, true: y}", {"tokens": ["a", None, "1.0"], "null": "x", "true": "y"}),
        ("{}", {}),
    ],
)  # fmt: skip
def test_a_row_is_typed_as_in_a_csv_or_as_json(row: str, meant: dict[str, object]) -> None:
    assert typed(f"predict.row={row}") == {"row": meant}


def test_a_cell_may_be_typed_by_its_name_in_any_script() -> None:
    assert typed("predict.row.工号=001", "predict.row.area m2=${x}") == {"row": {"工号": "001", "area m2": "${x}"}}


def typed(*words: str) -> object:
    """What the words say of the section `predict`."""
    return compose("predict", list(words)).tree["predict"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("task.labels=[no,yes,007,1.0,null,true]", ["no", "yes", "007", "1.0", "null", "true"]),
        ("dataset.columns.text=no", "no"),
        ("dataset.columns.text=1e3", "1e3"),
        ("dataset.columns={text: null, label: 007}", {"text": "null", "label": "007"}),
        ("dataset.header=[2023,2024]", ["2023", "2024"]),
        ("dataset.validation=null", None),
        ("model.freeze=null", None),
        ("task.class_weights={积极: 2, no: 1, true: 3, 007: 4}", {"积极": 2, "no": 1, "true": 3, "007": 4}),
        ('task.class_weights={"a b": 2.5}', {"a b": 2.5}),
        ("optimizer.lr=${seed}", 3),
        ("model.config={hidden_size: ${seed}}", {"hidden_size": 3}),
        ("trainer.max_steps=1_000", 1000),
    ],
)
def test_only_texts_are_taken_letter_by_letter(word: str, meant: object) -> None:
    found: object = compose("finetune", ["seed=3", word]).tree
    for part in word.partition("=")[0].split("."):
        assert isinstance(found, dict)
        found = found[part]
    assert found == meant


def test_a_text_that_looks_like_a_reference_survives_its_run_folder(here: Path) -> None:
    """config.yaml is a recipe, and read by itself too; `--cfg job` prints one."""
    config = load("finetune", ["dataset=csv", "dataset.train=a${b}\\${c}", "run.dir=run", "model.path=${x}"])
    run = Run.create(config)
    assert run.config().dataset == config.dataset
    assert load("finetune", ["run/config.yaml"]).dataset == config.dataset
    assert load("finetune", ["run/config.yaml"]).model == config.model
