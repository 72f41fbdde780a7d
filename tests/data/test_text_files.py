"""CSV, TSV and JSON as they are, and what is said of files that are broken."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.data.csv_files import open_csv
from llmft.data.json_files import open_json
from llmft.data.source import Source, Table
from llmft.predictions.rows import open_file
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError

Write = Callable[..., Path]


def whole(source: Source) -> Table:
    table = Table()
    for _, chunk in source.chunks():
        table.extend(chunk)
    return table


def read_csv(file: Path, name: str, encoding: str) -> Table:
    return whole(open_csv(file, name, encoding))


def read_json(file: Path, name: str, encoding: str) -> Table:
    return whole(open_json(file, name, encoding))


READS = [
    ("a.csv", "text,label\nhi,1\n", {"text": ["hi"], "label": ["1"]}),
    ("a.csv", "text,label\n001,NA\nnull,None\n", {"text": ["001", "null"], "label": ["NA", "None"]}),
    ("a.csv", 'text,label\n"a, ""b""\nc",1\n', {"text": ['a, "b"\nc'], "label": ["1"]}),
    ("a.csv", "\ufefftext,label\r\nhi,1\r\n", {"text": ["hi"], "label": ["1"]}),
    ("a.csv", "text;label\n1,5;a\n", {"text": ["1,5"], "label": ["a"]}),
    ("a.csv", "text\tlabel\na,b\tc\n", {"text": ["a,b"], "label": ["c"]}),
    ("a.csv", "文本,标签\n很好\u3000,好评\n\n", {"文本": ["很好\u3000"], "标签": ["好评"]}),
    ("a.csv", "text,label\na\u2028b,1\n", {"text": ["a\u2028b"], "label": ["1"]}),
    ("a.tsv", 'label\ttext\n1\t"quoted" start\n', {"label": ["1"], "text": ['"quoted" start']}),
    ("a.tsv", 'label\ttext\n1\t"tab\there"\n', {"label": ["1"], "text": ["tab\there"]}),
    ("a.tsv", 'label\ttext\n1\t"never closed\n0\tx\n', {"label": ["1", "0"], "text": ['"never closed', "x"]}),
]


LINE_ENDS = [
    ("a.csv", 'a,b\r\n"x\r\ny\rz\nw",1\r\n2,3\r\n', {"a": ["x\r\ny\rz\nw", "2"], "b": ["1", "3"]}),
    ("a.csv", "a,b\nx\ry,1\r\r\n\r2\r,3\n4,5\r", {"a": ["x\ry", "\r2\r", "4"], "b": ["1", "3", "5"]}),
    ("a.tsv", 'a\tb\nx\ry"\t"1\n', {"a": ['x\ry"'], "b": ['"1']}),
]


@pytest.mark.parametrize(("name", "text", "columns"), LINE_ENDS)
def test_a_carriage_return_is_a_letter_but_at_line_ends(
    name: str, text: str, columns: dict[str, list[str]], write: Write
) -> None:
    assert read_csv(write(name, text), name, "utf-8").columns == columns
    asked = open_file(write(name, text), None, "utf-8", None)
    assert [list(row.values.values()) for row in asked.rows] == [
        list(row) for row in zip(*columns.values(), strict=True)
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_file_without_line_ends_is_not_taken_for_one_line(name: str, write: Write) -> None:
    """Spreadsheets on Macs of the last century wrote such files, and some still can."""
    text = "text,label\ra,1\rb,2\r" if name == "a.csv" else '{"text": "a"}\r{"text": "b"}\r'
    with pytest.raises(UserError, match=r"has no line that ends at \\n or \\r\\n, only at \\r"):
        (read_csv if name == "a.csv" else read_json)(write(name, text), name, "utf-8")
    assert read_json(write("b.json", '[{"a":\r1}]\r'), "b.json", "utf-8").columns == {"a": [1]}


SEPARATORS = [
    ("Yes, sir, of course\tJa\na\tb\n", ["source", "target"], [["Yes, sir, of course", "a"], ["Ja", "b"]]),
    ("Oh, well, yes;neg\nfilm 1;pos\n", ["text", "label"], [["Oh, well, yes", "film 1"], ["neg", "pos"]]),
    ("text, in a way, or so;label\na;1\nb, c;2\n", [], [["a", "b, c"], ["1", "2"]]),
    ("text;label\na,b;1\nc,d;2\n", [], [["a,b", "c,d"], ["1", "2"]]),
    ("one, two\nthree\n", ["text"], [["one, two", "three"]]),
    ('a,b\n"1;2;3",x\n"4;5;6",y\n', [], [["1;2;3", "4;5;6"], ["x", "y"]]),
    ('say "hi\tx\nsay, "ho\ty\n', ["a", "b"], [['say "hi', 'say, "ho'], ["x", "y"]]),
    ("text\na, b\n", ["text"], [["text", "a, b"]]),
]


@pytest.mark.parametrize(("text", "header", "columns"), SEPARATORS)
def test_the_separator_is_the_one_that_the_rows_agree_on(
    text: str, header: list[str], columns: list[list[str]], write: Write
) -> None:
    assert list(whole(open_csv(write("a.csv", text), "a.csv", "utf-8", header)).columns.values()) == columns


def test_a_separator_can_be_named(write: Write) -> None:
    file = write("a.csv", "a,b|c\n1,2|3\n")
    assert whole(open_csv(file, "a.csv", "utf-8", (), "|")).columns == {"a,b": ["1,2"], "c": ["3"]}
    assert whole(open_csv(write("a.tsv", "a;b\n1;2\n"), "a.tsv", "utf-8", (), ";")).columns == {"a": ["1"], "b": ["2"]}
    assert [row.values for row in open_file(file, None, "utf-8", None, "|").rows] == [{"a,b": "1,2", "c": "3"}]
    assert [row.values for row in open_file(file, None, "utf-8", None, ";").rows] == [{"a": "1", "b|c": "2|3"}], (
        "not in it"
    )
    assert [DatasetConfig(separator=one).separator for one in ("tab", r"\t", "|", None)] == ["\t", "\t", "|", None]
    for wrong in ("", "::", '"', " "):
        with pytest.raises(ValueError, match="must be one character"):
            DatasetConfig(separator=wrong)


def test_the_space_behind_every_separator_is_a_part_of_it(write: Write) -> None:
    """The files of UCI have one. A quote behind it opens a text, in which commas and spaces are letters."""
    file = write("a.csv", 'age, town, label\n35, "Ulm, old ""town""", no\n7,  two,yes\n')
    columns = {"age": ["35", "7"], "town": ['Ulm, old "town"', "two"], "label": ["no", "yes"]}
    assert read_csv(file, "a.csv", "utf-8").columns == columns
    asked = open_file(file, None, "utf-8", None)
    assert [list(row.values.values()) for row in asked.rows] == [
        list(row) for row in zip(*columns.values(), strict=True)
    ]
    assert read_csv(write("b.csv", "a,b\nx, y\n"), "b.csv", "utf-8").columns == {"a": ["x"], "b": [" y"]}


@pytest.mark.parametrize(("name", "text", "columns"), READS)
def test_text_stays_text(name: str, text: str, columns: dict[str, list[str]], write: Write) -> None:
    table = read_csv(write(name, text), name, "utf-8")
    assert table.columns == columns
    assert table.ids == [f"{name}:{line}" for line in range(2, len(table) + 2)]


def test_a_row_is_named_by_the_line_where_it_starts(write: Write) -> None:
    file = write("a.csv", 'text,label\n"two\nlines",1\n\nlast,0\n')
    assert read_csv(file, "a.csv", "utf-8").ids == ["a.csv:2", "a.csv:5"]


def test_two_stray_quotes_of_a_tsv_swallow_no_rows(write: Write) -> None:
    rows = ["text\tlabel", '"Great film, he said\tpos', "dull\tneg", 'the screen is 19"\tpos', "fine\tpos"]
    table = read_csv(write("a.tsv", "\n".join(rows) + "\n"), "a.tsv", "utf-8")
    assert table.columns["label"] == ["pos", "neg", "pos", "pos"]


def test_a_very_long_text_is_read(write: Write) -> None:
    assert (
        len(read_csv(write("a.csv", "text\n" + "x" * 500_000 + "\n"), "a.csv", "utf-8").columns["text"][0]) == 500_000
    )


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7", "gb18030", "shift_jis", "iso2022_jp"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_chunk_is_read_again_from_its_mark(
    encoding: str, end: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In encodings with a byte order mark, with a state, and with characters of one to four bytes."""
    monkeypatch.setattr("llmft.data.csv_files.CHUNK", 3)
    monkeypatch.setattr("llmft.data.json_files.CHUNK", 3)
    rows = [f'"本{"x" * i}, ""{i}""{end}次",{i}' for i in range(2000)]
    text = "text,label\n" + "\n\n".join(rows).replace("\n", end) + end
    objects = "".join(f'{{"text": "本{i}"}}\n\n' for i in range(2000)).replace("\n", end)
    for source in (
        open_csv(write("a.csv", text.encode(encoding)), "a.csv", encoding),
        open_json(write("a.jsonl", objects.encode(encoding)), "a.jsonl", encoding),
    ):
        found = list(source.chunks())
        assert len(found) == 667
        assert sum(len(table) for _, table in found) == 2000
        tables = [table for _, table in found]
        for number, (mark, table) in list(enumerate(found))[::133]:
            assert next(source.chunks(mark)) == (mark, table)
            assert [again for _, again in source.chunks(mark)] == tables[number:]


BROKEN_CSV = [
    ("text,label\nok,1\nshort\nok,0\n", "a.csv:3  1 field, fewer than the 2 of the header"),
    ("text,label\nok,1\na,b,c\n", "a.csv:3  3 fields, more than the 2 of the header"),
    ('text,label\n"two\nlines",1\nx\n', "a.csv:4  1 field"),
    (
        'age,town\n35, "Ulm, old"\n',
        "A quote opens a text only directly after the separator: remove the space before it",
    ),
    ("a,b\n1,2\r3,4\r5,6", r"a.csv:2  4 fields, more than the 2 of the header. It holds \r alone"),
    ("a,b\n1|2\n", "If the separator is another one, write dataset.separator=."),
    ('text,label\n"open,1\nb,0\n', "a.csv:2  a quote that opens here is never closed"),
    ('text,label\n"a"b,1\n', "a.csv:2  ',' expected after '\"'"),
    ("text,label,text\na,1,b\n", "a.csv:1  two columns are called 'text'"),
    (
        "text,label\n很好,1\n".encode("gb18030"),
        "a.csv:2  is not utf-8 (byte 1 of the line is 0xBA). It looks like gb18030: set dataset.encoding=gb18030",
    ),
    (
        "text,label\nhi,1\n".encode("utf-16"),
        "is not utf-8 (byte 1 of the line is 0xFF). It looks like utf-16: set dataset.encoding=utf-16",
    ),
    (
        "text,label\nhi,1\n".encode("utf-32"),
        "is not utf-8 (byte 1 of the line is 0xFF). It looks like utf-32: set dataset.encoding=utf-32",
    ),
    (
        b"\0\0\xfe\xff" + "text\nhi\n".encode("utf-32-be"),
        "is not utf-8 (byte 3 of the line is 0xFE). It looks like utf-32",
    ),
    (
        "text,label\ncaf\xe9,1\n".encode("latin-1"),
        "a.csv:2  is not utf-8 (byte 4 of the line is 0xE9). It looks like cp1252",
    ),
    (b"text,label\na\0b,1\n", "a.csv:2  holds NUL characters. Is it utf-16? Set dataset.encoding=utf-16."),
]


@pytest.mark.parametrize(("text", "what"), BROKEN_CSV)
def test_a_broken_csv_is_named_by_line(text: str | bytes, what: str, write: Write) -> None:
    with pytest.raises(UserError) as error:
        read_csv(write("a.csv", text), "a.csv", "utf-8")
    assert what in " ".join(str(error.value).replace("  ", "\0").split()).replace("\0", "  ")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_file_read_as_latin_1_is_known_by_its_mark(encoding: str, write: Write) -> None:
    with pytest.raises(UserError, match=f"holds NUL characters. Is it {encoding}[?]"):
        read_csv(write("a.csv", "text,label\nhi,1\n".encode(encoding)), "a.csv", "latin-1")


def test_many_broken_rows_are_counted(write: Write) -> None:
    with pytest.raises(UserError) as error:
        read_csv(write("a.csv", "text,label\n" + "x\n" * 50), "a.csv", "utf-8")
    assert "and 45 more like these" in str(error.value)


def test_a_file_of_broken_rows_alone_is_not_read_to_its_end(write: Write) -> None:
    """So that what is wrong with a file that memory cannot hold fits into memory."""
    for source in (
        open_csv(write("a.csv", "text,label\n" + "x\n" * 5000), "a.csv", "utf-8"),
        open_json(write("a.jsonl", "x\n" * 5000), "a.jsonl", "utf-8"),
    ):
        with pytest.raises(UserError, match="and many more like these"):
            list(source.chunks())


def test_a_line_far_down_is_named_in_another_encoding(write: Write) -> None:
    text = ("text,label\n" + "plain,1\n" * 50_000).encode() + "很好,1\n".encode("gb18030") + b"plain,1\n" * 500_000
    with pytest.raises(UserError) as error:
        read_csv(write("a.csv", text), "a.csv", "utf-8")
    assert "a.csv:50002  is not utf-8 (byte 1 of the line is 0xBA). It looks like gb18030" in str(error.value)


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "latin-1", "shift_jis"])
def test_other_encodings_can_be_named(encoding: str, write: Write) -> None:
    text = "café" if encoding == "latin-1" else "本"
    assert read_csv(write("a.csv", f"text\n{text}\n".encode(encoding)), "a.csv", encoding).columns == {"text": [text]}


JSONS = [
    (
        '{"text": "a", "label": 1}\n\n{"text": "b"}\n',
        Table({"text": ["a", "b"], "label": [1, None]}, ["a.jsonl:1", "a.jsonl:3"]),
    ),
    ('[{"text": "a"}, {"text": "NA"}]', Table({"text": ["a", "NA"]}, ["a.jsonl:1", "a.jsonl:2"])),
    ('{"text": "a\u2028b"}', Table({"text": ["a\u2028b"]}, ["a.jsonl:1"])),
]


@pytest.mark.parametrize(("text", "table"), JSONS)
def test_json_rows(text: str, table: Table, write: Write) -> None:
    assert read_json(write("a.jsonl", text), "a.jsonl", "utf-8") == table


BROKEN_JSON = [
    ('{"text": "a"}\n{"text": \n', "a.jsonl:2  is not JSON"),
    ('{"text": "a"}\n[1, 2]\n', "a.jsonl:2  is not a JSON object"),
    ('[{"text": "a"}', "a.jsonl:1  is not JSON"),
]


@pytest.mark.parametrize(("text", "what"), BROKEN_JSON)
def test_a_broken_json_is_named_by_line(text: str, what: str, write: Write) -> None:
    with pytest.raises(UserError) as error:
        read_json(write("a.jsonl", text), "a.jsonl", "utf-8")
    assert what in str(error.value)
