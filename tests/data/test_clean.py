"""Cleaning: texts are mended in every split; rows are left out of train alone, the first of each kind stays, in order."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.config.load import load as compose
from llmft.data import clean
from llmft.data.checks import input_keys
from llmft.data.duplicates import jaccard, near_duplicates_of, shingles, without_duplicates, without_leaks, without_near
from llmft.data.pipeline import load
from llmft.data.source import Table
from llmft.schema.column import Column
from llmft.schema.dataset import CleanConfig, DatasetConfig
from llmft.schema.problem import UserError

Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
ROLES = {"text": Column("text"), "text_pair": Column("text", required=False), "label": Column("label")}


class Texts:
    """A task as the data see it."""

    columns: ClassVar = ROLES

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        raise NotImplementedError


class Features(Texts):
    """The same of a table."""

    columns: ClassVar = {"features": Column("features"), "label": Column("label")}


def of(**keys: Any) -> DatasetConfig:
    none = {"validation": 0, "test": 0}
    return DatasetConfig.model_validate({"format": "json", "train": "train.jsonl", "split": none, **keys})


def jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


def table(*rows: tuple[str, str]) -> Table:
    return Table(
        {"text": [text for text, _ in rows], "label": [label for _, label in rows]},
        [f"a:{i}" for i in range(1, len(rows) + 1)],
    )


MENDED = {
    "mojibake": ("cafÃ© â€“ trÃ¨s bon", "café – très bon"),
    "mojibake of Chinese": ("è¿™å®¶é¤\x90åŽ…å¾ˆå¥½", "这家餐厅很好"),
    "a surrogate pair": ("\ud83d\ude00 fine", "😀 fine"),
    "half a pair": ("\ud83d fine", "\ufffd fine"),
    "a control character": ("a\x00b\x1b[31mc", "abc"),
    "what is right stays": ("“Zitat”, ﬁn, ＡＢＣ，１ &amp; <b>\r\ne\u0301 ①", None),
}


@pytest.mark.parametrize("name", MENDED)
def test_texts_are_mended_and_what_is_right_stays(name: str) -> None:
    text, wanted = MENDED[name]
    found, counts = clean.repair(table((text, text)), ROLES, CleanConfig(unicode=True))
    assert found.columns == {"text": [wanted or text], "label": [text]}
    assert dict(counts) == ({"texts were mended": 1} if wanted else {})


@pytest.mark.parametrize(("form", "wanted"), [("NFC", "é ① Ａ"), ("NFKC", "é 1 A"), (None, "e\u0301 ① Ａ")])
@pytest.mark.parametrize("unicode", [True, False])
def test_texts_are_normalised(form: Any, wanted: str, unicode: bool) -> None:
    found, _ = clean.repair(table(("e\u0301 ① Ａ", "a")), ROLES, CleanConfig(normalize=form, unicode=unicode))
    assert found.columns["text"] == [wanted]


ROWS = [("Good day", "a"), ("good  DAY", "b"), ("bad day", "b"), ("good day", "a"), ("bad day", "b")]
REPEATS = {
    "first": (False, [1, 3], ["train: 3 exact duplicates were left out, 1 of them with another label than the row that stays"]),
    "agreeing": (True, [3], ["train: 1 exact duplicate was left out", "train: 3 rows of inputs with several labels were left out"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REPEATS)
def test_exact_duplicates(name: str) -> None:
    agreeing, rows, notes = REPEATS[name]
    found, lines = without_duplicates(table(*ROWS), ROLES, agreeing)
    assert (found.ids, lines) == ([f"a:{row}" for row in rows], notes)


def test_rows_of_a_table_are_compared_by_all_their_columns() -> None:
    rows = Table(
        {"features": [{"a": 1, "b": "x"}, {"b": "X", "a": 1}, {"a": 2, "b": "x"}], "label": ["1", "1", "1"]},
        ["1", "2", "3"],
    )
    assert without_duplicates(rows, Features.columns, agreeing=False)[0].ids == ["1", "3"]


def test_likeness_is_the_share_of_common_runs() -> None:
    assert shingles("Abc  DEF") == {"abc d", "bc de", "c def"}
    assert shingles("ab") == {"ab"}
    assert jaccard("abcdef", "abcdeg") == pytest.approx(1 / 3)
    assert jaccard("abc", "ABC ") == 1


def test_near_duplicates_of_several_scripts_are_found() -> None:
    """50 long texts, each again with a letter changed: more than eight in ten of their runs are the same."""
    rng = random.Random(0)
    scripts = ("abcdefghijklmnopqrstuvwxyz ", "的一是不了人我在有他这为之大来以个中上们", "абвгдежзийклмнопрст ")
    texts = ["".join(rng.choices(scripts[i % 3], k=120)) for i in range(50)]
    changed = [text[:60] + "#" + text[61:] for text in texts]
    assert near_duplicates_of(texts + changed, 0.8) == {50 + i: i for i in range(50)}
    assert near_duplicates_of(texts + changed, 0.95) == {}


def test_near_duplicates_are_told_with_an_example() -> None:
    long = "The quick brown fox jumps over the lazy dog, and the dog does not even look up"
    train = table((long, "a"), ("something else", "a"), (long + ".", "b"), (long + "!", "a"))
    found, lines = without_near(train, [], ROLES, 0.8)
    assert found.ids == ["a:1", "a:2"]
    assert lines == [
        "train: 2 near duplicates were left out, 1 of them with another label than the row that stays",
        "train: such as a:3, which is like a:1",
    ]
    test = Table({"text": [long + "?"], "label": ["a"]}, ["test:1"])
    found, lines = without_near(train, [test], ROLES, 0.8)
    assert found.ids == ["a:2"]
    assert lines == [
        "train: 3 rows that are nearly in other splits were left out, 1 of them with another label than the row that stays",
        "train: such as a:1, which is like test:1",
    ]


def test_what_two_texts_share_is_not_looked_for_across_them() -> None:
    pair = Table(
        {"text": ["one text here", "one text"], "text_pair": ["and two", "here and two"], "label": ["a", "a"]},
        ["1", "2"],
    )
    assert len(without_near(pair, [], ROLES, 0.9)[0]) == 2


# Words of few letters, so that repeats and near repeats are common.
SOME = st.lists(st.tuples(st.text("ab é中 ", max_size=9), st.sampled_from("01")), max_size=12).map(
    lambda rows: table(*rows)
)


@given(SOME)
@settings(max_examples=60, deadline=None)
def test_leaving_duplicates_out_keeps_one_of_each_in_order_and_once(rows: Table) -> None:
    once, _ = without_duplicates(rows, ROLES, agreeing=False)
    assert without_duplicates(once, ROLES, agreeing=False) == (once, [])
    assert input_keys(once, ROLES) == list(dict.fromkeys(input_keys(rows, ROLES)))
    strict, _ = without_duplicates(rows, ROLES, agreeing=True)
    assert without_duplicates(strict, ROLES, agreeing=True) == (strict, [])
    labels = {key: set() for key in input_keys(rows, ROLES)}  # type: ignore[var-annotated]
    for key, label in zip(input_keys(rows, ROLES), rows.columns["label"], strict=True):
        labels[key].add(label)
    assert input_keys(strict, ROLES) == [key for key, found in labels.items() if len(found) == 1]


@given(SOME, st.sampled_from([0.5, 0.8, 0.95]))
@settings(max_examples=40, deadline=None)
def test_leaving_near_duplicates_out_keeps_one_like_each_in_order_and_once(rows: Table, threshold: float) -> None:
    once, _ = without_near(rows, [], ROLES, threshold)
    assert without_near(once, [], ROLES, threshold) == (once, [])
    assert once.ids == [id for id in rows.ids if id in once.ids]
    kept = once.columns.get("text", [])
    assert all(any(jaccard(text, other) >= threshold for other in kept) for text in rows.columns["text"])


@given(SOME, SOME)
@settings(max_examples=40, deadline=None)
def test_only_what_is_in_other_splits_leaks(rows: Table, other: Table) -> None:
    found, _ = without_leaks(rows, [other], ROLES)
    known = set(input_keys(other, ROLES))
    assert input_keys(found, ROLES) == [key for key in input_keys(rows, ROLES) if key not in known]


@given(st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_mending_changes_no_row_but_its_text(text: str) -> None:
    rows = table((text, "a"), ("plain", text))
    found, _ = clean.repair(rows, ROLES, CleanConfig(unicode=True, normalize="NFC"))
    assert (found.ids, found.columns["label"], found.columns["text"][1]) == (rows.ids, ["a", text], "plain")


WHOLE = {
    "unicode": True,
    "min_characters": 4,
    "max_characters": 200,
    "duplicates": "first",
    "near_duplicates": 0.8,
    "leaks": True,
}
LONG = "a text that is long enough to be nearly the same as another one, number"


def test_all_of_it_together(write: Write) -> None:
    """Each row of train but the last two has one fault; those of test have the same, and stay."""
    faults = [
        ("too", "0"),
        ("x" * 201, "0"),
        ("a leak", "0"),
        ("twice", "0"),
        ("twice", "1"),
        (f"{LONG} 1", "0"),
        (f"{LONG} 2", "1"),
        ("\x07", "0"),
    ]
    write("train.jsonl", jsonl([*faults, ("cafÃ©", "0"), ("fine", "1")]))
    test = [("A  Leak", "0"), ("thÃ©", "1"), ("no", "0"), ("same", "1"), ("same", "1")]
    write("test.jsonl", jsonl(test))
    data = load(of(test="test.jsonl", clean=WHOLE, drop_empty=True), Texts())  # no overlap is left
    assert data["train"]["text"][:] == ["twice", f"{LONG} 1", "café", "fine"]
    assert data["test"]["text"][:] == ["A  Leak", "thé", "no", "same", "same"]
    assert data.notes == [
        "train: 2 texts were mended",
        "test: 1 text was mended",
        "train: 1 row with an empty text was left out",
        "train: 1 row with a text shorter than 4 characters was left out",
        "train: 1 row with a text longer than 200 characters was left out",
        "train: 1 row that is also in other splits was left out",
        "train: 1 exact duplicate was left out, 1 of them with another label than the row that stays",
        "train: 1 near duplicate was left out, 1 of them with another label than the row that stays",
        "train: such as train.jsonl:7, which is like train.jsonl:6",
    ]
    with pytest.raises(UserError, match="1 of the 5 rows of test is also in train"):
        load(of(test="test.jsonl"), Texts())  # by default nothing is changed


def test_shares_are_taken_of_clean_rows(write: Write) -> None:
    write("train.jsonl", jsonl([(f"{i // 4} rows of one text", "01"[i // 4 % 2]) for i in range(160)]))
    data = load(of(split={}, clean={"duplicates": "first"}), Texts())
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 32, "validation": 4, "test": 4}


def test_nothing_left_is_said(write: Write) -> None:
    write("train.jsonl", jsonl([("abc", "0"), ("def", "1")]))
    with pytest.raises(UserError, match=r"dataset\.train  has 0 rows"):
        load(of(clean={"min_characters": 9}), Texts())


def test_a_stream_is_cleaned_as_it_is_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmft.data.json_files.CHUNK", 3)
    write("train.jsonl", jsonl([("cafÃ©" if i % 3 else "ab" * (i % 2) or f"row {i}", str(i % 2)) for i in range(20)]))
    asked = {"unicode": True, "min_characters": 3}
    whole = load(of(clean=asked), Texts())
    streamed = load(of(clean=asked, streaming=True), Texts())
    assert streamed.stream is not None
    rows = [
        row
        for part in streamed.stream.windows(range(len(streamed.stream.chunks)), 0, len(streamed.stream), 5)
        for row in part
    ]
    assert rows == [row for part in streamed.stream for row in part] == list(whole["train"])
    assert streamed.notes == [note for note in whole.notes if "repeat" not in note and "label" not in note]


def test_a_table_has_no_texts_to_clean(write: Write) -> None:
    write("train.jsonl", "".join(json.dumps({"a": i // 2, "label": i % 2}) + "\n" for i in range(20)))
    with pytest.raises(UserError) as error:
        load(of(clean={"near_duplicates": 0.9, "unicode": True, "leaks": True}), Features())
    assert [problem.key for problem in error.value.problems] == [
        "dataset.clean.unicode",
        "dataset.clean.near_duplicates",
    ]
    data = load(of(clean={"duplicates": "first", "leaks": True}), Features())
    assert data.notes[0].startswith("train: 10 exact duplicates were left out, 10 of them")


@pytest.mark.parametrize(("key", "package"), [("unicode=true", "ftfy"), ("near_duplicates=0.8", "datasketch")])
def test_a_missing_package_is_named(
    key: str, package: str, llmft: Run, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmft.schema.problem.find_spec", lambda name: None)
    write("a.csv", "text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(40)))
    code, _, err = llmft(
        "finetune", "+recipe=bert_textcls", "smoke=true", "dataset=csv", "dataset.train=a.csv", f"dataset.clean.{key}"
    )
    assert code == 2
    assert (
        f"{key.split('=')[0]} needs the package {package}, which is not installed. Install it: pip install 'llmft[clean]'"
        in err
    )


STREAMED = "dataset=csv dataset.train=a.csv dataset.split={validation:0,test:0} dataset.streaming=true dataset.clean."
MISTAKES = [
    (STREAMED + "duplicates=first", "dataset.clean.duplicates  compares rows with each other, and streamed rows are never all in memory"),
    (STREAMED + "near_duplicates=0.9", "dataset.clean.near_duplicates  compares rows with each other"),
    (STREAMED + "leaks=true", "dataset.clean.leaks  compares rows with each other"),
    ("dataset.clean.min_characters=9 dataset.clean.max_characters=8", "dataset.clean.max_characters  must be at least dataset.clean.min_characters=9"),
    ("dataset.clean.near_duplicates=0.1", "dataset.clean.near_duplicates  must be at least 0.5, got 0.1"),
    ("dataset.clean.normalize=NFD", "must be one of 'NFC' or 'NFKC', got 'NFD'"),
    ("dataset.clean.duplicate=first", "Did you mean dataset.clean.duplicates?"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "text"), MISTAKES)
def test_mistakes(llmft: Run, words: str, text: str) -> None:
    code, _, err = llmft("finetune", *words.split(" "))
    assert code == 2
    assert text in err


def test_eval_mends_what_training_mended(llmft: Run, write: Write, here: Path) -> None:
    """Other data are chosen by a group, and how the model's texts are mended stays."""
    write("a.csv", "text,label\n" + "".join(f"cafÃ© {i} {'gut' if i % 2 else 'schlecht'},{i % 2}\n" for i in range(60)))
    write("b.csv", "text,label\ncafÃ© gut,1\ncafé schlecht,0\n")
    words = ["+recipe=bert_textcls", "smoke=true", "dataset=csv", "dataset.train=a.csv", "dataset.clean.unicode=true"]
    code, out, err = llmft("finetune", *words, "run.dir=run")
    assert code == 0, err
    assert "  note      train: 60 texts were mended\n" in out
    assert llmft("eval", "run", "dataset=csv", "dataset.test=b.csv", "run.dir=again")[0] == 0
    shown = [json.loads(line)["input"] for line in (here / "again/predictions/test.jsonl").read_text().splitlines()]
    assert shown == ["café gut", "café schlecht"]


def test_what_is_kept_is_of_its_cleaning(llmft: Run, write: Write) -> None:
    """In the cache, the notes come again, and another cleaning is another entry."""
    write("a.csv", "text,label\n" + "".join(f"row {i // 2},{i // 2 % 2}\n" for i in range(80)))
    words = ["+recipe=bert_textcls", "smoke=true", "dataset=csv", "dataset.train=a.csv", "trainer.max_steps=1"]
    origins = []
    for more in ([], ["dataset.clean.duplicates=first"], ["dataset.clean.duplicates=first"]):
        code, out, err = llmft("finetune", *words, *more)
        assert code == 0, err
        origins += [line.split("  ")[-1].strip() for line in out.splitlines() if line.startswith("  prepared")]
        assert ("40 exact duplicates were left out" in out) == bool(more)
    assert origins == [
        "now, and kept for later runs (seen for the first time)",
        "now, and kept for later runs (changed: dataset.clean.duplicates)",
        "from the cache",
    ]


def test_what_is_not_asked_for_is_not_imported() -> None:
    sys.modules.pop("ftfy", None)
    config = compose("finetune", ["+recipe=bert_textcls", "smoke=true"])
    assert clean.libraries(config.dataset) == []
    assert clean.repair(table(("cafÃ©", "a")), ROLES, config.dataset.clean)[0].columns["text"] == ["cafÃ©"]
    assert "ftfy" not in sys.modules
