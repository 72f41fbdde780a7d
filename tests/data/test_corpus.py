"""A corpus is read, cleaned and shared out as it goes to the disk."""

import gc
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmft.data import corpus, documents, sieve
from llmft.data.corpus import load_corpus, tokenizer_texts
from llmft.data.pipeline import Data
from llmft.schema.column import CORPUS_COLUMNS
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError

Write = Callable[[str, str | bytes], Path]
Load = Callable[..., Data]
WORDS = ["time", "river", "stone", "letter", "garden", "window", "music", "paper", "winter", "bread"]


class Texts:
    """A task of raw text."""

    columns = CORPUS_COLUMNS

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        return {"text": [f"made up {seed} {row}" for row in range(rows)]}


@pytest.fixture
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    def call(splits: tuple[str, ...] = corpus.SPLITS, **keys: Any) -> Data:
        config = DatasetConfig.model_validate({"format": "text", "unit": "paragraph"} | keys)
        return load_corpus(config, Texts(), tmp_path_factory.mktemp("entry"), splits)

    return call


def paragraphs(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"{' '.join(rng.choices(WORDS, k=12))} {seed}-{number}.\n\n" for number in range(count)]


def test_every_document_is_in_one_split(load: Load, write: Write) -> None:
    texts = paragraphs(600)
    write("a.txt", "".join(texts))
    data = load(train="a.txt", split={"validation": 0.1, "test": 0.2})
    found = {name: list(rows["text"]) for name, rows in data.splits.items()}
    assert list(found) == ["train", "validation", "test"]
    assert sorted(text for rows in found.values() for text in rows) == sorted(texts)
    assert (len(found["validation"]), len(found["test"])) == (60, 120)
    assert [text for text in texts if text in set(found["train"])] == found["train"]
    assert data["train"].column_names == ["id", "text", "document"]
    assert list(data.digests) == ["a.txt"]
    again = load(train="a.txt", split={"validation": 0.1, "test": 0.2})
    assert {name: list(rows["text"]) for name, rows in again.splits.items()} == found
    other = load(train="a.txt", split={"validation": 0.1, "test": 0.2, "seed": 1})
    assert list(other["test"]["text"]) != found["test"]


@pytest.mark.parametrize(
    ("count", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (20, (16, 2, 2)), (36, (28, 4, 4)), (64, (52, 6, 6))]
)
def test_a_small_corpus_has_its_shares(count: int, sizes: tuple[int, ...], load: Load, write: Write) -> None:
    for seed in range(5):
        write("a.txt", "".join(paragraphs(count, seed)))
        data = load(train="a.txt", split={"seed": seed})
        assert tuple(len(data[name]) for name in ("train", "validation", "test")) == sizes
    most = load(train="a.txt", split={"validation": 0.5, "test": 0.4})
    assert min(len(rows) for rows in most.splits.values()) >= 1


def test_equal_texts_are_not_parted_by_the_shares(load: Load, write: Write) -> None:
    texts = paragraphs(200)
    write("a.txt", "".join(texts))
    write("b.txt", "".join(text.upper().replace(" ", "  ") for text in reversed(texts)))
    data = load(train=["a.txt", "b.txt"])
    for rows in data.splits.values():
        assert len(rows) == 2 * len({" ".join(text.casefold().split()) for text in rows["text"]})
    assert [len(data[name]) for name in ("train", "validation", "test")] == [320, 40, 40]


def test_parts_of_a_document_stay_together(load: Load, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PIECE", 40)
    for number in range(40):
        write(f"texts/{number:02}.txt", "".join(paragraphs(3, seed=number)))
    data = load(train="texts", unit="file")
    owners: dict[str, set[str]] = {}
    for name, rows in data.splits.items():
        for document in rows["document"]:
            owners.setdefault(document, set()).add(name)
    assert len(owners) == 40
    assert {len(found) for found in owners.values()} == {1}
    joined: dict[str, str] = {}
    for rows in data.splits.values():
        for row in rows:
            joined[row["document"]] = joined.get(row["document"], "") + row["text"]
    assert joined == {f"{number:02}.txt:1": "".join(paragraphs(3, seed=number)) for number in range(40)}


def test_a_text_is_kept_byte_for_byte(load: Load, write: Write) -> None:
    write("a.txt", "  First. \r\n\r\n\tSecond.\r\n\n \n")
    data = load(train="a.txt", split={"validation": 0, "test": 0})
    assert list(data["train"]["text"]) == ["  First. \r\n\r\n", "\tSecond.\r\n\n \n"]


def test_jsonl_names_its_columns(load: Load, write: Write) -> None:
    rows = [{"body": f"text {i}", "page": i // 2} for i in range(6)] + [{"other": 1}, {"body": None}]
    write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    none = {"validation": 0, "test": 0}
    data = load(format="json", unit="file", train="a.jsonl", columns={"text": "body", "document": "page"}, split=none)
    assert list(data["train"]["document"]) == ["0", "0", "1", "1", "2", "2"]
    assert data.notes == ["train: 2 rows without text were left out", "train: columns that are not read: other"]
    plain = load(format="json", unit="file", train="a.jsonl", columns={"text": "body"}, split=none)
    assert list(plain["train"]["document"]) == list(plain["train"]["id"]) == [f"a.jsonl:{i}" for i in range(1, 7)]


def test_made_up_rows_need_no_file(load: Load) -> None:
    data = load(format="synthetic", unit="file", max_rows=8)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 8, "validation": 8, "test": 8}


LONG = "It is a text of some length, which nobody has written before, and which holds no word twice but a few. "
CLEANED: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "nothing": ({}, ["a", "b", "b", "=====", LONG], []),
    "short": ({"min_characters": 5}, ["=====", LONG], ["train: 3 rows with a text shorter than 5 characters were left out"]),
    "long": ({"max_characters": 50}, ["a", "b", "b", "====="], ["train: 1 row with a text longer than 50 characters was left out"]),
    "doubles": ({"duplicates": "first"}, ["a", "b", "=====", LONG], ["train: 1 exact duplicate was left out"]),
    "leaks": ({"leaks": True}, ["b", "b", "=====", LONG], ["train: 1 row that is also in other splits was left out"]),
    "no language": ({"quality": True}, ["a", "b", "b", LONG], ["train: 1 row with too few letters was left out"]),
    "all": (
        {"quality": True, "duplicates": "first", "leaks": True, "max_characters": 50},
        ["b"],
        [
            "train: 1 row that is also in other splits was left out",
            "train: 1 exact duplicate was left out",
            "train: 1 row with too few letters was left out",
            "train: 1 row with a text longer than 50 characters was left out",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEANED)
def test_a_corpus_is_cleaned_with_a_line_for_each_rule(name: str, load: Load, write: Write) -> None:
    clean, left, notes = CLEANED[name]
    write("a.txt", f"a\nb\n B \n=====\n{LONG}\n")
    write("v.txt", "A\n")
    keys: dict[str, Any] = {"unit": "line", "train": "a.txt", "validation": "v.txt", "split": {"test": 0}}
    data = load(**keys, clean=clean, max_overlap=1)
    assert [text.strip().lower() for text in data["train"]["text"]] == [text.strip().lower() for text in left]
    assert [note for note in data.notes if note.endswith("left out")] == notes
    assert list(data["validation"]["text"]) == ["A\n"]


def test_near_duplicates_are_told_with_an_example(load: Load, write: Write) -> None:
    texts = [LONG, *paragraphs(3), LONG.replace("nobody", "no-one"), "Quite another text of its own, about rivers."]
    write("a.txt", "\n\n".join(text.strip() for text in texts))
    write("v.txt", LONG.replace("length", "depth"))
    none = {"validation": 0, "test": 0}
    data = load(train="a.txt", split=none, clean={"near_duplicates": 0.8})
    assert len(data["train"]) == 5
    assert data.notes == [
        "train: 1 near duplicate was left out",
        "train: such as a.txt:9, which is like a.txt:1",
    ]
    data = load(train="a.txt", validation="v.txt", split=none, clean={"near_duplicates": 0.8, "leaks": True})
    assert len(data["train"]) == 5  # a.txt:9 is like a.txt:1, which did not stay, and less like v.txt:1
    assert data.notes == [
        "train: 1 row that is nearly in other splits was left out",
        "train: such as a.txt:1, which is like v.txt:1",
    ]


def test_texts_are_mended_in_every_split(load: Load, write: Write) -> None:
    pytest.importorskip("ftfy")
    write("a.txt", "cafÃ©\n\nplain\n")
    write("v.txt", "naÃ¯ve ①\n")
    clean = {"unicode": True, "normalize": "NFKC"}
    data = load(train="a.txt", validation="v.txt", split={"test": 0}, clean=clean)
    assert list(data["train"]["text"]) == ["café\n\n", "plain\n"]
    assert list(data["validation"]["text"]) == ["naïve 1\n"]
    assert data.notes == ["validation: 1 text was mended", "train: 1 text was mended"]


def test_a_document_of_several_rows_is_not_too_short_for_its_end(
    load: Load, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "PIECE", 20)
    write("a.txt", "a line of 17 chars\nend\n\nend\n")
    data = load(train="a.txt", split={"validation": 0, "test": 0}, clean={"min_characters": 10})
    assert list(data["train"]["text"]) == ["a line of 17 chars\n", "end\n\n"]


def test_the_first_documents_are_enough(load: Load, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands after them is not read."""
    monkeypatch.setattr(documents, "PIECE", 40)
    texts = paragraphs(400)
    write("a.txt", "".join(texts).encode() + b"\xff" * 100)
    monkeypatch.setattr(documents, "CHUNK", 20)
    data = load(train="a.txt", max_rows=3)
    assert {name: len(set(rows["document"])) for name, rows in data.splits.items()} == {"train": 3, "validation": 3, "test": 3}  # fmt: skip
    names = list(dict.fromkeys(data["train"]["document"]))
    first = "".join(row["text"] for row in data["train"] if row["document"] == names[0])
    assert first in texts


def test_the_splits_that_are_not_asked_for_are_not_given(load: Load, write: Write) -> None:
    write("a.txt", "".join(paragraphs(100)))
    assert list(load(("validation", "test"), train="a.txt").splits) == ["validation", "test"]
    write("t.txt", "a text")
    assert list(load(("validation", "test"), test="t.txt").splits) == ["test"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an empty file": ({"train": "empty.txt"}, "dataset.train  holds no text"),
    "blank lines": ({"train": "blank.txt"}, "dataset.train  holds no text: 1 row without text was left out"),
    "all cleaned away": (
        {"train": "a.txt", "clean": {"min_characters": 9999}},
        "dataset.train  holds no text: 50 rows with a text shorter than 9999 characters were left out",
    ),
    "an empty test": ({"train": "a.txt", "test": "blank.txt"}, "dataset.test  holds no text: 1 row without text"),
    "one document": (
        {"train": "a.txt", "unit": "file"},
        " without text: there is 1 document. "
        "Each file is one: write dataset.unit=paragraph for smaller ones. Name files for validation and test",
    ),
    "two documents of three splits": (
        {"train": "two.txt"},
        "dataset.split  leaves validation and test without text: there are 2 documents",
    ),
    "no file": ({"train": "none.txt"}, "dataset.train  must be a file, got none.txt, which does not exist"),
    "a file of two splits": ({"train": "a.txt", "test": "copy.txt"}, "copy.txt has the same bytes as a.txt of train"),
    "a test that is in train": ({"train": "a.txt", "test": "part.txt"}, "dataset.test  5 of the 6 rows of test are also in train"),
    "bytes that are none": ({"train": "bad.txt"}, "bad.txt:101  is not utf-8 (byte 1 of the line is 0xFF)"),
    "no column": ({"train": "a.csv", "format": "csv"}, "dataset.columns.text  train has no column 'text'; it has body"),
    "a group": ({"train": "a.txt", "columns": {"group": "document"}}, "dataset.columns.group  the task has no such role"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_corpus_that_cannot_be_trained_on_is_refused(name: str, load: Load, write: Write) -> None:
    keys, what = WRONG[name]
    texts = paragraphs(50)
    for file, content in {
        "empty.txt": "",
        "blank.txt": " \n\n\t\n",
        "a.txt": "".join(texts),
        "copy.txt": "".join(texts),
        "two.txt": "".join(texts[:2]),
        "part.txt": "".join([*texts[:5], "Another.\n"]),
        "bad.txt": "".join(texts).encode() + b"\xff\n" + "".join(texts).encode(),
        "a.csv": "body\nx\n",
    }.items():
        write(file, content)
    with pytest.raises(UserError) as error:
        load(**keys)
    assert what in str(error.value)


def test_digests_are_a_set_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sieve, "RECENT", 7)
    rng = random.Random(0)
    found, known = sieve.Digests(), set[int]()
    for _ in range(300):
        number = rng.choice([rng.randrange(2**64), rng.randrange(40), 2**64 - 1])
        assert (number in found) == (number in known)
        assert found.add(number) == (number not in known)
        known.add(number)
    assert len(found) == len(known)


def test_a_tokenizer_learns_from_texts_spread_over_all(
    load: Load, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = paragraphs(90)
    write("a.txt", "".join(texts))
    rows = load(train="a.txt", split={"validation": 0, "test": 0})["train"]
    assert list(tokenizer_texts(rows)) == texts
    monkeypatch.setattr(corpus, "LEARNT", len("".join(texts)) // 3)
    assert len(list(tokenizer_texts(rows))) in (23, 30)


def peak(work: Callable[[], object]) -> int:
    """Bytes that Python and numpy hold at most meanwhile."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_corpus(load: Load, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the text, the same memory except for 8 bytes a document, and 20 while they are shared out."""
    monkeypatch.setattr(sieve, "RECENT", 100)
    for module in (documents, corpus):
        monkeypatch.setattr(module, "CHUNK", 50)
        monkeypatch.setattr(module, "BATCH", 5000)

    def lines(count: int) -> Iterator[str]:
        return (f"{number} {' '.join(WORDS)} {number * 7919} {number}.\n\n" for number in range(count))

    peaks = []
    for count in (100, 400, 1600):
        file = here / f"{count}.txt"
        file.write_text("".join(lines(count)))
        peaks.append(peak(lambda file=file: load(train=str(file), clean={"duplicates": "first"})))  # type: ignore[misc]
    assert peaks[2] < peaks[1] + 1200 * 28, "of the first one, modules are a part"
