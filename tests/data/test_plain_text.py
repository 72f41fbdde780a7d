"""Text files and the docstrings of Python files, as rows of raw text."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.data import documents
from llmft.data.documents import PlainText, PythonFile
from llmft.data.read import chunks, files_of
from llmft.data.source import Table
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError

Write = Callable[[str, str | bytes], Path]
TEXT = "\nOne \r\u2028line.\r\nAnother.\n\n\nA paragraph\n  of two lines\n\nThe last 一"


def rows(file: Path, unit: str, encoding: str = "utf-8") -> Table:
    found = Table({"text": [], "document": []})
    for _, table in PlainText(file, file.name, encoding, unit).chunks():  # type: ignore[arg-type]
        found.extend(table)
    return found


UNITS = {
    "file": ([TEXT], ["a.txt:1"]),
    "paragraph": (
        ["\nOne \r\u2028line.\r\nAnother.\n\n\n", "A paragraph\n  of two lines\n\n", "The last 一"],
        ["a.txt:1", "a.txt:6", "a.txt:9"],
    ),
    "line": (
        ["\nOne \r\u2028line.\r\n", "Another.\n\n\n", "A paragraph\n", "  of two lines\n\n", "The last 一"],
        ["a.txt:1", "a.txt:3", "a.txt:6", "a.txt:7", "a.txt:9"],
    ),
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
def test_a_document_is_what_the_unit_says(unit: str, encoding: str, write: Write) -> None:
    texts, ids = UNITS[unit]
    assert rows(write("a.txt", TEXT.encode(encoding)), unit, encoding) == Table({"text": texts, "document": ids}, ids)


def test_a_long_document_is_several_rows_cut_at_line_ends(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PIECE", 10)
    text = "four\nfive\nsix\n\nand a line that is too long\nend\n"
    table = rows(write("a.txt", text), "paragraph")
    assert table.columns["text"] == ["four\nfive\n", "six\n\n", "and a line", " that is t", "oo long\n", "end\n"]
    assert table.columns["document"] == ["a.txt:1"] * 2 + ["a.txt:5"] * 4
    assert table.ids == ["a.txt:1", "a.txt:3", "a.txt:5", "a.txt:5", "a.txt:5", "a.txt:6"]


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("ab 一🙂\n\r\t\u2028\x0b"), max_size=80), piece=st.integers(1, 30))
def test_the_rows_of_a_file_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, unit: str, text: str, piece: int
) -> None:
    file = tmp_path_factory.mktemp("text") / "a.txt"
    file.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "PIECE", piece)
        table = rows(file, unit)
    assert "".join(table.columns["text"]).encode() == file.read_bytes()
    assert all(len(part.rstrip()) <= piece and len(part) <= 3 * piece for part in table.columns["text"])


def test_a_packed_file_is_read_like_another(write: Write, here: Path) -> None:
    packed = write("a.txt.gz", gzip.compress(TEXT.encode()))
    assert rows(packed, "line").columns["text"] == UNITS["line"][0]
    config = DatasetConfig(format="text", train=str(here))
    assert files_of(config, "train", str(here)) == [packed]


BROKEN = {
    "bytes of another encoding": (b"a line\n" * 20_000 + b"caf\xe9\n" + b"on\n", "a.txt:20001  is not utf-8 (byte 4 of the line is 0xE9). It looks like cp1252"),
    "a character cut off": ("好的\n".encode() + "好".encode()[:2] + b"\nmore\n", "a.txt:2  is not utf-8 (byte 1 of the line is 0xE5)"),
    "NUL characters": (b"a\nb\0c\n", "a.txt:2  holds NUL characters"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_text_is_named(name: str, write: Write) -> None:
    content, what = BROKEN[name]
    with pytest.raises(UserError) as error:
        rows(write("a.txt", content), "paragraph")
    assert what in str(error.value)


def test_half_a_packed_file_is_named(write: Write) -> None:
    with pytest.raises(UserError, match=r"a\.txt\.gz  is not a complete gzip file"):
        rows(write("a.txt.gz", gzip.compress(TEXT.encode() * 99)[:-20]), "file")


MODULE = '''#!/usr/bin/env python
# -*- coding: utf-8 -*-
# A licence
# of two lines.
"""What it is for: Привет."""

x = 1  # beside code
# alone
y = """no docstring"""  # type: ignore


class A:
    """A class

        indented.
    Not.
    """

    def f(self):
        "Short."
        return "# no comment"
'''


def test_the_words_of_a_module_are_one_document(write: Write) -> None:
    ((_, table),) = PythonFile(write("a.py", MODULE), "a.py").chunks()
    parts = ["A licence\nof two lines.", "What it is for: Привет.", "beside code", "alone", "A class\n\n    indented.\nNot.", "Short."]  # fmt: skip
    assert table == Table({"text": ["\n\n".join(parts) + "\n\n"], "document": ["a.py:3"]}, ["a.py:3"])


@pytest.mark.parametrize("code", [b"def f(:\n", b"x = '\xe9'\n", b"x = 1\n", b"", b"# coding: nonsense\n"])
def test_a_file_without_words_or_of_another_python_has_no_row(code: bytes, write: Write) -> None:
    assert list(PythonFile(write("a.py", code), "a.py").chunks()) == []


def test_no_code_is_run(write: Write, here: Path) -> None:
    write("a.py", 'open("ran", "w")\n"""Text."""\n# A word.\n')
    assert list(PythonFile(here / "a.py", "a.py").chunks())
    assert not (here / "ran").exists()


def test_pydocs_are_those_of_this_python_or_of_a_folder(write: Write, here: Path) -> None:
    config = DatasetConfig(format="pydocs", train="**/*.py")
    files = files_of(config, "train", "**/*.py")
    assert files == sorted(files)
    assert {"argparse.py", "decoder.py"} < {file.name for file in files}
    assert not [file for file in files if {"site-packages", "test"} & set(file.parts[-3:])]
    write("pack/inner/a.py", MODULE)
    write("pack/b.py", "# One comment.\n")
    own = DatasetConfig(format="pydocs", path=str(here / "pack"), train="**/*.py")
    found = [row for _, _, table in chunks(own, files_of(own, "train", "**/*.py")) for row in table.ids]
    assert found == ["b.py:1", "a.py:3"]


def test_files_of_one_name_are_told_apart(write: Write, here: Path) -> None:
    files = [write(name, "words\n") for name in ("x/a.txt", "y/a.txt", "y/b.txt", "z/y/b.txt")]
    config = DatasetConfig(format="text", train=[str(file) for file in files])
    found = [row for _, _, table in chunks(config, files) for row in table.ids]
    assert found == ["x/a.txt:1", "y/a.txt:1", f"{here.name}/y/b.txt:1", "z/y/b.txt:1"]
