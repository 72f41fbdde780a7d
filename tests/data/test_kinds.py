"""What a file is, by its first bytes: said in one sentence, whatever format was to read it."""

import gzip
import io
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from llmft.data.encodings import FREE, inner_name, open_bytes
from llmft.data.files import kind_of, mismatch
from llmft.predictions.rows import open_file, open_stream
from llmft.schema.problem import UserError

Write = Callable[[str, str | bytes], Path]
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def zipped(*names: str, content: bytes = b"x") -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return found.getvalue()


def tarred() -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.csv"))
    return found.getvalue()


def numpy_file() -> bytes:
    found = io.BytesIO()
    numpy.save(found, numpy.zeros(3))
    return found.getvalue()


KINDS = {
    "a.csv": (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook", "dataset=excel"),
    "b.csv": (OLE + bytes(600), "an old Excel workbook", ".xlsx"),
    "c.xlsx": (OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le"), "locked by a password", "without one"),
    "d.csv": (zipped("word/document.xml"), "a Word document", "plain text"),
    "e.csv": (zipped("mimetype", "content.xml"), "another form than .xlsx", ".xlsx"),
    "f.json": (pickle.dumps([1]), "a pickle, which can hold code", "df.to_parquet"),
    "g.pkl": (b"(lp0\n.", "a pickle, which can hold code", "df.to_parquet"),
    "h.csv": (zipped("model/data.pkl", "model/version"), "a pickle, which can hold code", "df.to_parquet"),
    "i.csv": (b"SQLite format 3\0" + bytes(600), "a SQLite database", "dataset=sqlite"),
    "j.txt": (b"\x89PNG\r\n\x1a\n\0\0", "an image (PNG)", "Write dataset=images"),
    "k.csv": (b"\xff\xd8\xff\xe0\0\x10JFIF", "an image (JPEG)", "Write dataset=images"),
    "l.csv": (b"RIFF\0\0\0\0WEBPVP8 ", "an image (WebP)", "Write dataset=images"),
    "m.txt": (b"%PDF-1.7\n", "a PDF", "pdftotext"),
    "n.csv": (gzip.compress(b"text\n"), "a gzip file", ".gz"),
    "o.csv.gz": (gzip.compress(tarred()), "a tar archive", "Unpack"),
    "p.json": (b"PAR1....PAR1", "a parquet file", "dataset=parquet"),
    "q.csv": (b"\xff\xff\xff\xff\x10\0\0\0", "an Arrow file", "dataset=arrow"),
    "r.csv": (numpy_file(), "a NumPy file", "to_parquet"),
    "s.csv": (zipped("a.csv"), "a zip", "end in .zip"),
    "t.csv": (b"\n<!DOCTYPE html><html>", "a web page", "download"),
    "u.csv": (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS", "git lfs pull"),
    "v.csv.zip": (zipped("b.xlsx", content=zipped("xl/workbook.xml")), "packed", "Unpack"),
    "w.json": (b"{\\rtf1 hello}", "a rich text document", "plain text"),
    "x.csv": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive", "Unpack"),
}


@pytest.mark.parametrize("name", KINDS)
def test_it_is_called_what_it_is(name: str, write: Write) -> None:
    content, what, hint = KINDS[name]
    file = write(name, content)
    for format in ("csv", "json", "conll", "text", "squad"):
        problem = mismatch(file, name, format)
        assert problem and what in problem.what and hint in problem.hint
    if not any(format in hint for format in ("excel", "sqlite", "parquet", "arrow")) or "to_parquet" in hint:
        with pytest.raises(UserError, match=r"is ") as error:  # predict answers no line of it
            open_file(file, None, "utf-8", "text")
        assert what in str(error.value)


TEXTS = [b"BMW,good\n", b"PK,label\n", b"Rar,b\n", "文字,标签\n".encode("gb18030"), b"\x80uro,b\n", b"", b"MM,II\n"]
TEXTS += ["a,b\n".encode("utf-16"), "a,b\n".encode("utf-32"), b"\xef\xbb\xbfa,b\n", b"GIF8,b\n", b"II,MM\n", b"ID3,b\n"]


@pytest.mark.parametrize("content", TEXTS)
def test_texts_are_texts(content: bytes, write: Write) -> None:
    file = write("a.csv", content)
    assert kind_of(file) is None
    assert mismatch(file, "a.csv", "csv") is None


def test_a_page_may_be_a_text_to_pretrain_on(write: Write) -> None:
    assert kind_of(write("page.txt", "<html><body>")) is None


MISMATCHES = [
    ("a.jsonl", '{"text": "a"}\n', "csv", "is JSON, and dataset=csv reads tables", "dataset=json"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0), "csv", "is JSON", "dataset=json"),
    ("a.csv", "text,label\n", "json", "is a table", "dataset=csv"),
    ("a.parquet", "text,label\n", "parquet", "is a text, not a parquet file", "dataset=csv"),
    ("a.xlsx", '[{"a": 1}]', "excel", "is a text, not an Excel workbook", "dataset=json"),
]


@pytest.mark.parametrize(("name", "content", "format", "what", "hint"), MISMATCHES)
def test_another_format_is_said(name: str, content: Any, format: str, what: str, hint: str, write: Write) -> None:
    problem = mismatch(write(name, content), name, format)
    assert problem and what in problem.what and hint in problem.hint


def test_odd_names_are_no_mismatch(write: Write) -> None:
    assert mismatch(write("a.txt", '{"text": "a"}\n'), "a.txt", "json") is None
    assert mismatch(write("b.jsonl", "text,label\n"), "b.jsonl", "csv") is None
    assert mismatch(write("c.csv", '{price},"b"\n'), "c.csv", "csv") is None


def test_a_pipe_of_bytes_is_refused() -> None:
    stream = io.BufferedReader(io.BytesIO(zipped("xl/workbook.xml")))
    with pytest.raises(UserError, match=r"stdin +is a zip, and a pipe carries text. Name the file"):
        open_stream(stream, "stdin", None, "utf-8", "text")


def zst(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


TEXT = "".join(f"строка {i} \r\n" for i in range(5000)).encode()
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zip": lambda content: zipped("b.csv", content=content),
    ".zst": zst,
}


@pytest.mark.parametrize("ending", PACKINGS)
def test_packed_files_tell_and_seek(ending: str, write: Write) -> None:
    file = write(f"b.csv{ending}", PACKINGS[ending](TEXT))
    assert inner_name(file) == "b.csv"
    with open_bytes(file) as stream:
        assert stream.read(1000) == TEXT[:1000]
        assert stream.tell() == 1000
        stream.seek(90_000)
        assert stream.read(10) == TEXT[90_000:90_010]
        stream.seek(7)
        assert stream.read() == TEXT[7:]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_packed_parts_behind_one_another_are_all_read(ending: str, write: Write) -> None:
    """As pigz and pzstd write them."""
    with open_bytes(write(f"b{ending}", PACKINGS[ending](TEXT) + PACKINGS[ending](b"last"))) as stream:
        assert stream.read() == TEXT + b"last"


@pytest.mark.parametrize("ending", PACKINGS)
def test_half_a_packed_file_is_no_whole_one(ending: str, write: Write) -> None:
    content = PACKINGS[ending](b"text,label\n" + TEXT.replace(b"\r\n", b",a\n"))
    file = write(f"b.csv{ending}", content[: len(content) // 2])
    with pytest.raises(UserError, match=r"is not a complete|not complete"):
        list(open_file(file, None, "utf-8", "text").rows)


def test_a_damaged_member_is_named(write: Write) -> None:
    content = bytearray(zipped("b.csv", content=TEXT))
    content[200] ^= 0xFF
    with pytest.raises(UserError, match=r"not complete|not a complete"):
        list(open_file(write("b.zip", bytes(content)), None, "utf-8", "text").rows)


def test_a_zip_of_several_files_lists_them(write: Write) -> None:
    file = write("b.zip", zipped("train.csv", "data/", "data/test.csv", "__MACOSX/._a", ".DS_Store"))
    with pytest.raises(UserError, match=r"b.zip +holds 2 files: train.csv, data/test.csv. Unpack it"):
        open_bytes(file)
    with pytest.raises(UserError, match=r"holds no file"):
        open_bytes(write("c.zip", zipped("data/")))


def test_a_bomb_is_not_unpacked(write: Write) -> None:
    """The sizes in the directory are made to say 2 GB; a member that says less than it holds ends where it says."""
    content = zipped("b.csv", content=bytes(5000))
    size = (5000).to_bytes(4, "little")
    assert content.count(size) == 2
    with pytest.raises(UserError, match=r"unpacks to 2.1 GB, .* times its size"):
        open_bytes(write("b.zip", content.replace(size, (2 * FREE - 1).to_bytes(4, "little"))))
    with pytest.raises(UserError, match=r"not complete|not a complete"):
        list(open_file(write("c.zip", content.replace(size, (100).to_bytes(4, "little"))), "txt", "utf-8", "text").rows)


def test_a_locked_zip_is_named(write: Write) -> None:
    content = bytearray(zipped("b.csv"))
    place = content.index(b"PK\x01\x02")
    content[place + 8] |= 1
    with pytest.raises(UserError, match=r"is locked by a password"):
        open_bytes(write("b.zip", bytes(content)))


def test_real_ones_are_told(write: Write, here: Path) -> None:
    with sqlite3.connect("a.csv") as database:
        database.execute("create table t (a)")
    assert (found := kind_of(here / "a.csv")) and found.format == "sqlite"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), "b.csv")
    assert (found := kind_of(here / "b.csv")) and found.format == "parquet"
