"""Columns of words and tags: what is a sentence, what is none, and what is said of lines that are broken."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.data.annotated import open_conll
from llmft.data.source import Table
from llmft.predictions.rows import open_file
from llmft.schema.problem import UserError

Write = Callable[..., Path]


def read(file: Path, encoding: str = "utf-8") -> Table:
    table = Table()
    for _, chunk in open_conll(file, file.name, encoding).chunks():
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


COUNTED = {
    "GermEval": (
        "#\thttp://a.de [2009-10-17]\n1\tDi\tB-PER\n2\tOrr\tI-PER\n\n#\tb\n1\t2\tO\n",
        [["Di", "Orr"], ["2"]],
        [["B-PER", "I-PER"], ["O"]],
    ),
    "CoNLL-U": (
        "# text = Vámonos al\n1-2\tVámonos\t_\t_\n1\tVamos\tVERB\tO\n2\tnos\tPRON\tB-PER\n3-4\tal\t_\t_\n"
        "3\ta\tADP\tO\n4\tel\tDET\tO\n4.1\t_\t_\t_\n",
        [["Vamos", "nos", "a", "el"]],
        [["O", "B-PER", "O", "O"]],
    ),
    "CoNLL-2012": (
        "#begin document (bc/a); part 000\nbc/a 0 0 Ann NNP B-PER\nbc/a 0 1 ran VBD O\n\nbc/a 0 0 Bob NNP B-PER\n\n"
        "#end document\n",
        [["Ann", "ran"], ["Bob"]],
        [["B-PER", "O"], ["B-PER"]],
    ),
    "from 0": ("0\ta\tO\n1\tb\tO\n", [["a", "b"]], [["O", "O"]]),
    "numbers that are words": ("1\tx\tO\n2\tx\tO\n\n2\tx\tO\n", [["1", "2"], ["2"]], [["O", "O"], ["O"]]),
}


@pytest.mark.parametrize("name", COUNTED)
def test_words_stand_behind_the_column_that_counts_them(name: str, write: Write) -> None:
    text, tokens, tags = COUNTED[name]
    table = read(write("a.conll", text))
    assert (table.columns["tokens"], table.columns["tags"]) == (tokens, tags)
    count = sum(map(len, tokens))
    column = {"CoNLL-2012": 4, "numbers that are words": 0}.get(name, 2)
    noted = {f"words are those of column {column}, since the column before it counts them": count} if column else {}
    assert table.left_out == noted
    if len(tokens[0]) > 1 and column:  # rows to answer come one by one, without tags or with them
        asked = open_file(Path("a.conll"), None, "utf-8", None)
        assert [row.values["tokens"] for row in asked.rows] == tokens


def test_a_file_that_counts_words_and_has_none_is_refused(write: Write) -> None:
    with pytest.raises(UserError, match="column 1 counts words, and the one behind it, the last, holds their tags"):
        read(write("a.conll", "1 O\n2 B-x\n\n1 O\n"))


@pytest.mark.parametrize(("text", "tokens", "tags", "lines"), READS)
def test_sentences(text: str, tokens: list, tags: list, lines: list, write: Write) -> None:
    table = read(write("a.conll", text))
    assert table.columns == {"tokens": tokens, "tags": tags}
    assert table.ids == [f"a.conll:{line}" for line in lines]


FAULTS = [
    ("Ann\tB-per\nran\n", "a.conll:2", "must have a word and its tag, got one column, 'ran'"),
    ("Ann B-per\n\nran X-per\n", "a.conll:3", "'X-per' is not a tag"),
    ("Ann B\n", "a.conll:1", "'B' is not a tag"),
    ("Ann\tper\n", "a.conll:1", "'per' is not a tag"),
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
    monkeypatch.setattr("llmft.data.annotated.CHUNK", 2)
    text = "".join(f"{'é' * i}\tO\nx\tB-a\n{chr(10) * (1 + i % 2)}" for i in range(1, 6))
    source = open_conll(write("a.conll", text), "a.conll", "utf-8")
    chunks = list(source.chunks())
    assert [len(table) for _, table in chunks] == [2, 2, 1]
    for mark, table in chunks:
        assert next(source.chunks(mark)) == (mark, table)
    assert [id for _, table in chunks for id in table.ids] == read(source.file).ids
