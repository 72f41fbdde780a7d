"""Columns of words and tags: what is a sentence, what is none, and what is said of lines that are broken."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.data.conll import ConllFile
from llmft.data.table import Table
from llmft.schema.problem import UserError

Write = Callable[..., Path]


def read(file: Path, encoding: str = "utf-8") -> Table:
    table = Table()
    for _, chunk in ConllFile(file, file.name, encoding).chunks():
        table.extend(chunk)
    return table


READS = [
    ("Ann\tB-per\nran\tO\n\nBob\tB-per\n", [["Ann", "ran"], ["Bob"]], [["B-per", "O"], ["B-per"]], [1, 4]),
    # columns in between, and spaces as gaps
    ("Ann NNP I-NP B-per\n ran  VBD  O \n", [["Ann", "ran"]], [["B-per", "O"]], [1]),
    # lines between documents, comments, empty lines, no line end at the end, the line ends of Windows
    ("-DOCSTART- -X- O O\r\n\r\nAnn B-per\r\n\r\n\r\nran O", [["Ann"], ["ran"]], [["B-per"], ["O"]], [3, 6]),
    ("# id 7\n# text = Ann ran.\nAnn\tO\n-DOCSTART-\tO\nran\tO\n", [["Ann"], ["ran"]], [["O"], ["O"]], [3, 5]),
    ("#topic\tO\n# O\n#topic O\n", [["#topic", "#", "#topic"]], [["O", "O", "O"]], [1]),
    ("\ufeff北京\tB-地点\n\u3000\tO\né 👩‍👧\tO\n\t\n", [["北京", "\u3000", "é 👩‍👧"]], [["B-地点", "O", "O"]], [1]),
    ("a\rb\tO\r\n\x0c\tO\r\n\r\nc\x85 O", [["a\rb", "\x0c"], ["c\x85"]], [["O", "O"], ["O"]], [1, 4]),
    ("a\u2028b\tO\nc\xa0d\tO\t\n", [["a\u2028b", "c\xa0d"]], [["O", "O"]], [1]),
]


@pytest.mark.parametrize(("text", "tokens", "tags", "lines"), READS)
def test_sentences(text: str, tokens: list, tags: list, lines: list, write: Write) -> None:
    table = read(write("a.conll", text))
    assert table.columns == {"tokens": tokens, "tags": tags}
    assert table.ids == [f"a.conll:{line}" for line in lines]


FAULTS = [
    ("Ann\tB-per\nran\n", "a.conll:2", "has one column, 'ran'; a word and its tag are two"),
    ("Ann B-per\n\nran X-per\n", "a.conll:3", "'X-per' is no tag"),
    ("Ann B\n", "a.conll:1", "'B' is no tag"),
    ("Ann\tper\n", "a.conll:1", "'per' is no tag"),
    ("Ann\tB-per\n\tO\n", "a.conll:2", "has a tag and no word"),
    ("Ann\tO\n\nra\0n\tO\n", "a.conll:3", "holds NUL characters"),
]


@pytest.mark.parametrize(("text", "place", "what"), FAULTS)
def test_a_broken_line_is_named(text: str, place: str, what: str, write: Write) -> None:
    with pytest.raises(UserError) as error:
        read(write("a.conll", text))
    (problem,) = error.value.problems
    assert (problem.key, problem.what) == (place, what)


def test_all_broken_lines_are_counted(write: Write) -> None:
    with pytest.raises(UserError, match="and 4 more like these") as error:
        read(write("a.conll", "Ann\n" * 9))
    assert len(error.value.problems) == 6


def test_another_encoding(write: Write) -> None:
    file = write("a.conll", "北京\tB-地点\n".encode("gb18030"))
    assert read(file, "gb18030").columns["tokens"] == [["北京"]]
    with pytest.raises(UserError, match=r"set dataset\.encoding=gb18030"):
        read(file)


def test_a_chunk_can_be_read_again(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmft.data.conll.CHUNK", 2)
    text = "".join(f"{'é' * i}\tO\nx\tB-a\n{chr(10) * (1 + i % 2)}" for i in range(1, 6))
    source = ConllFile(write("a.conll", text), "a.conll", "utf-8")
    chunks = list(source.chunks())
    assert [len(table) for _, table in chunks] == [2, 2, 1]
    for mark, table in chunks:
        assert next(source.chunks(mark)) == (mark, table)
    assert [id for _, table in chunks for id in table.ids] == read(source.file).ids
