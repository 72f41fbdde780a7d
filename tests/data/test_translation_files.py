"""Texts and their translations from two aligned files, from tables without a header, from JSON and from gettext."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.data.pipeline import load
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError

Write = Callable[..., Path]
NO_SPLITS = {"split": {"validation": 0, "test": 0}}
PO = """
msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8"

#: menu.c:1
msgid "Open"
msgstr "Öffnen"

#, fuzzy
msgid "Close"
msgstr "Zu"

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d Datei"
msgstr[1] "%d Dateien"

msgid "Save"
msgstr ""

#~ msgid "Old"
#~ msgstr "Alt"
"""


class Pairs:
    """Translation as the data see it."""

    columns = {"source": Column("text"), "target": Column("texts", target=True)}  # noqa: RUF012

    def synthetic(self, rows: int, seed: int) -> dict[str, list[Any]]:
        return {"source": ["a"] * rows, "target": [["b"]] * rows}


def read(**keys: Any) -> tuple[list[tuple[str, str, list[str]]], list[str]]:
    """The training rows, and the notes on them."""
    data = load(DatasetConfig.model_validate(NO_SPLITS | keys), Pairs())
    rows = data["train"]
    return list(zip(rows["id"], rows["source"], rows["target"], strict=True)), data.notes


def test_two_files_are_read_line_by_line(write: Write) -> None:
    write("a.en", "\ufeffHi.\n\n \nGood day.\u2028Sir.\r\n")
    write("a.zh", "嗨。\n\n\n你好。")
    rows, notes = read(format="parallel", train=["a.en", "a.zh"])
    assert rows == [("a.en:1", "Hi.", ["嗨。"]), ("a.en:4", "Good day.\u2028Sir.", ["你好。"])]
    assert notes == ["train: 2 empty lines were left out"]


def test_aligned_files_longer_than_a_chunk(write: Write) -> None:
    write("a.en", "".join(f"{i}\n" for i in range(2500)))
    write("a.zh", "".join(f"第{i}\n" for i in range(2500)))
    rows, _ = read(format="parallel", train=["a.en", "a.zh"])
    assert rows[1999:2001] == [("a.en:2000", "1999", ["第1999"]), ("a.en:2001", "2000", ["第2000"])]
    assert len(rows) == 2500


def test_columns_of_a_file_without_a_header(write: Write) -> None:
    write("pairs.txt", 'Hi.\t嗨。\tby me\n"Go," he said.\t“走，”他说。\tby him, "too\n')
    rows, _ = read(format="csv", train="pairs.txt", header=["source", "target", "by"])
    assert rows == [("pairs.txt:1", "Hi.", ["嗨。"]), ("pairs.txt:2", '"Go," he said.', ["“走，”他说。"])]


def test_several_right_translations(write: Write) -> None:
    write("a.jsonl", '{"source": "Hi.", "target": "嗨。"}\n{"source": "Go.", "target": ["走。", "[去]"]}\n')
    assert [row[2] for row in read(format="json", train="a.jsonl")[0]] == [["嗨。"], ["走。", "[去]"]]


def test_messages_of_gettext(write: Write) -> None:
    write("de.po", PO)
    rows, notes = read(format="po", train="de.po")
    assert [row[1:] for row in rows] == [("Open", ["Öffnen"]), ("%d file", ["%d Datei"])]
    assert [row[0] for row in rows] == ["de.po:5", "de.po:13"]
    left_out = ("fuzzy message", "message without a translation", "obsolete message")
    assert sorted(notes) == sorted(f"train: 1 {what} was left out" for what in left_out)


def test_a_message_of_gettext_may_hold_what_python_takes_for_a_line_end(write: Write) -> None:
    write("de.po", 'msgid "a\u2028b\x0cc"\nmsgstr "x\ry"\n\nmsgid "d"\nmsgstr "z"\n')
    rows, _ = read(format="po", train="de.po")
    assert rows == [("de.po:1", "a\u2028b\x0cc", ["x\ry"]), ("de.po:4", "d", ["z"])]


def test_targets_are_mended_as_sources_are(write: Write) -> None:
    write("a.jsonl", '{"source": "cafe\u0301", "target": ["e\u0301", "u\u0308"]}\n')
    rows, notes = read(format="json", train="a.jsonl", clean={"normalize": "NFC"})
    assert rows[0][1:] == ("caf\u00e9", ["\u00e9", "\u00fc"])
    assert notes == ["train: 2 texts were mended"]


WRONG = [
    ({"train": ["a.en", "b.zh"]}, r"a\.en  has 3 lines, and b\.zh has 2\. Each line must be the translation"),
    ({"train": ["b.zh", "a.en"]}, r"b\.zh  has 2 lines, and a\.en has 3"),
    (
        {"train": "a.en"},
        r"dataset\.train  must be two files for dataset=parallel, got 1 file.*=\[train\.en,train\.zh\]",
    ),
    ({"train": ["a.en", "b.zh", "c.zh"]}, "must be two files for dataset=parallel, got 3 files"),
    ({"train": "."}, r"must be a file, got the folder \."),
    ({"train": ["a.en", "c.zh"]}, r"a\.en:2 +has an empty target \(train\)"),
    ({"train": ["c.zh", "a.en"]}, r"c\.zh:2 +has an empty text \(train\)"),
    ({"train": ["a.en", "latin.zh"]}, r"latin\.zh:2  is not utf-8"),
    ({"format": "po", "train": "broken.po"}, r"broken\.po:3  is not a gettext file: unescaped double quote"),
    ({"format": "po", "train": "a.en"}, r"a\.en:1  is not a gettext file"),
    ({"format": "csv", "train": "a.tsv"}, r"a\.tsv:2  3 fields, more than the 2 of the header"),
    ({"format": "json", "train": "none.jsonl"}, r"none\.jsonl:1  has an empty target \(train\)"),
    ({"format": "json", "train": "half.jsonl"}, r"half\.jsonl:1  has an empty target \(train\)"),
    ({"format": "json", "train": "number.jsonl"}, r"target is 3, neither a text nor a list of texts"),
    ({"format": "json", "train": "mixed.jsonl"}, r"target is \['a', 3\], neither a text nor a list of texts"),
]


@pytest.mark.parametrize(("keys", "what"), WRONG)
def test_what_is_wrong_is_said_by_file_and_line(keys: dict[str, Any], what: str, write: Write) -> None:
    write("a.en", "one\ntwo\nthree\n")
    write("b.zh", "一\n二\n")
    write("c.zh", "一\n\n三\n")
    write("latin.zh", "eins\nzwölf\ndrei\n".encode("latin-1"))
    write("broken.po", 'msgid "a"\nmsgstr "b"\nmsgid "c"d"\nmsgstr "e"\n')
    write("a.tsv", "one\t一\ntwo\t二\tby me\n")
    write("none.jsonl", '{"source": "a", "target": []}\n')
    write("half.jsonl", '{"source": "a", "target": ["b", " "]}\n')
    write("number.jsonl", '{"source": "a", "target": 3}\n')
    write("mixed.jsonl", '{"source": "a", "target": ["a", 3]}\n')
    header = {"header": ["source", "target"]} if keys.get("format") == "csv" else {}
    with pytest.raises(UserError, match=what):
        read(**{"format": "parallel", **header, **keys})
