"""Files as they come: the same rows from each, strictly, and nothing of them lost or changed."""

import datetime
import gzip
import json
import re
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from llmft.data.pipeline import load
from llmft.data.read import chunks, files_of, read_split
from llmft.data.roles import assign
from llmft.data.source import Table
from llmft.predictions.rows import open_file
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from tests.data.test_pipeline import Texts

Write = Callable[[str, str | bytes], Path]


def of(format: str, **keys: Any) -> DatasetConfig:
    return DatasetConfig.model_validate({"format": format, **keys})


def read(format: str, file: str, **keys: Any) -> Table:
    return read_split(of(format, **keys), "train", file)[0]


def workbook(name: str, rows: list[list[Any]], sheet: str = "Sheet") -> Any:
    book = openpyxl.Workbook()
    page = book.active
    page.title = sheet
    for row in rows:
        page.append(row)
    book.save(name)
    return book


HEADER = ["text", "zip", "price", "count", "day", "note", "label"]
ROWS: list[list[Any]] = [
    ["ein Text", "001", 3.5, 3, datetime.date(2024, 5, 3), None, "a"],
    ["zwei\nZeilen, mit Komma", "020", 0.1, 1000000, None, "NA", "b"],
    ['"quoted"', "null", None, 0, datetime.date(1999, 12, 31), " x ", "a"],
    ["表格 😀", "1e3", -2.25, -7, datetime.date(2024, 2, 29), "true", "b"],
]
CSV = """text,zip,price,count,day,note,label
ein Text,001,3.5,3,2024-05-03,,a
"zwei
Zeilen, mit Komma",020,0.1,1000000,,NA,b
\"""quoted\""",null,,0,1999-12-31, x ,a
表格 😀,1e3,-2.25,-7,2024-02-29,true,b
"""
FEATURES = {"features": Column("features"), "label": Column("label")}


def made(kind: str, write: Write) -> Table:
    """The table of CSV by another kind of file. Excel and SQLite hold numbers, and Excel dates."""
    if kind == "xlsx":
        workbook("a.xlsx", [HEADER, *ROWS])
        return read("excel", "a.xlsx")
    if kind == "sqlite":
        with sqlite3.connect("a.db") as database:
            database.execute(
                "create table t (text text, zip text, price real, count integer, day text, note text, label text)"
            )
            rows = [[str(cell) if isinstance(cell, datetime.date) else cell for cell in row] for row in ROWS]
            database.executemany("insert into t values (?, ?, ?, ?, ?, ?, ?)", rows)
        return read("sqlite", "a.db")
    if kind == "csv.gz":
        write("a.csv.gz", gzip.compress(CSV.encode()))
    elif kind == "csv.zip":
        with zipfile.ZipFile("a.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/b.csv", CSV)
    elif kind == "tsv.zip":
        with zipfile.ZipFile("a.tsv.zip", "w") as archive:
            rows = [[str("" if cell is None else cell).replace("\n", " ") for cell in row] for row in [HEADER, *ROWS]]
            archive.writestr("b.tsv", "\n".join("\t".join(f'"{c}"' if "," in c else c for c in row) for row in rows))
    else:
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(CSV.encode())
        write("a.csv.zst", sink.getvalue().to_pybytes())
    return read("csv", f"a.{kind}")


@pytest.mark.parametrize("kind", ["xlsx", "sqlite", "csv.gz", "csv.zip", "csv.zst"])
def test_the_same_rows_are_the_same_after_roles(kind: str, write: Write) -> None:
    write("a.csv", CSV)
    plain, other = read("csv", "a.csv"), made(kind, write)
    assert other.columns == plain.columns
    config = of("csv")
    assert assign(other, config, FEATURES, "train").columns == assign(plain, config, FEATURES, "train").columns


def test_a_packed_tsv_is_read_by_tabs(write: Write) -> None:
    table = made("tsv.zip", write)
    assert table.columns["zip"] == ["001", "020", "null", "1e3"]
    assert table.columns["text"][1] == "zwei Zeilen, mit Komma"


def test_row_ids_are_those_that_excel_shows(here: Path) -> None:
    workbook("a.xlsx", [[], ["text", "label"], ["a", "x"], [], ["b", "y"]])
    table = read("excel", "a.xlsx")
    assert (table.ids, table.columns) == (["a.xlsx:3", "a.xlsx:5"], {"text": ["a", "b"], "label": ["x", "y"]})
    Path("a.xlsx").rename("a.csv")
    assert read("excel", "a.csv").columns == table.columns, "openpyxl goes by the name"


def test_cells_of_a_workbook(here: Path) -> None:
    """A cell, its number format, and its text: what Excel's own csv says, except for full numbers and ISO dates."""
    book = openpyxl.Workbook()
    page = book.active
    page.append(["a"])
    cells = [
        (3.0, "General", "3"),
        (3, "0.00", "3"),
        (1 / 3, "0.0", "0.3333333333333333"),
        (7, "000", "007"),
        (1234567890123456, "General", "1234567890123456"),
        (0.5, "0%", "0.5"),
        (True, "General", "TRUE"),
        ("001", "General", "001"),
        (" a ", "General", " a "),
        ("a_x000D_b_x005F_x0041_", "General", "a\rb_x0041_"),  # as the format writes \r and _x0041_
        ("#N/A", "General", "#N/A"),
        (datetime.date(2024, 5, 3), "DD.MM.YYYY", "2024-05-03"),
        (datetime.datetime(2024, 5, 3), "yyyy-mm-dd hh:mm", "2024-05-03 00:00:00"),
        (datetime.datetime(2024, 5, 3, 10, 20), 'd. mmmm "shown"', "2024-05-03 10:20:00"),
        (datetime.time(10, 20), "h:mm", "10:20:00"),
        (datetime.timedelta(hours=30, minutes=5), "[h]:mm:ss", "30:05:00"),
    ]
    for row, (value, format, _) in enumerate(cells, 2):
        page.cell(row, 1, value).number_format = format
    book.save("a.xlsx")
    assert read("excel", "a.xlsx").columns["a"] == [text for _, _, text in cells]


def test_dates_of_the_other_epoch(here: Path) -> None:
    book = openpyxl.Workbook()
    book.epoch = openpyxl.utils.datetime.CALENDAR_MAC_1904
    book.active.append(["day"])
    book.active.append([datetime.date(2024, 5, 3)])
    book.save("a.xlsx")
    assert read("excel", "a.xlsx").columns["day"] == ["2024-05-03"]


def put(name: str, old: str, new: str) -> None:
    """Change the XML of the first sheet of a workbook; `old` is a pattern."""
    part = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(name) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    parts[part], count = re.subn(old.encode(), new.encode(), parts[part])
    assert count
    with zipfile.ZipFile(name, "w") as archive:
        for file, content in parts.items():
            archive.writestr(file, content)


def test_formulas_are_what_came_of_them(here: Path) -> None:
    workbook("a.xlsx", [["n", "text"], [1, "a"], ["=A2+1", "b"]])
    with pytest.raises(
        UserError, match=r"a.xlsx:3 +A3 must hold a value, got a formula that was never computed. Open the file"
    ):
        read("excel", "a.xlsx")
    put("a.xlsx", r"</f><v(?: */>|></v>)", "</f><v>2</v>")
    assert read("excel", "a.xlsx").columns == {"n": ["1", "2"], "text": ["a", "b"]}


def test_a_formula_may_give_an_empty_text(here: Path) -> None:
    workbook("a.xlsx", [["n", "text"], [1, "a"], ['=""', "b"]])
    put("a.xlsx", r'<c r="A3"><f>(.*?)</f><v(?: */>|></v>)', r'<c r="A3" t="str"><f>\1</f><v></v>')
    assert read("excel", "a.xlsx").columns["n"] == ["1", ""]


def test_errors_of_formulas_are_named_and_other_rows_answered(here: Path) -> None:
    workbook("a.xlsx", [["text", "n"], ["a", "#REF!"], ["b", "#N/A"], ["c", "#DIV/0!"], ["d", 1, "stray"]])
    with pytest.raises(UserError) as error:
        read("excel", "a.xlsx")
    for place in (
        "a.xlsx:2  B2 must hold a value, got the error #REF!. Correct",
        "a.xlsx:4  B4 must hold a value, got the error",
        "C5 must be empty, since its",
    ):
        assert place in str(error.value)
    rows = list(open_file(Path("a.xlsx"), None, "utf-8", "text").rows)
    assert [(row.id, row.values, bool(row.error)) for row in rows] == [
        ("a.xlsx:2", {}, True),
        ("a.xlsx:3", {"text": "b", "n": "#N/A"}, False),
        ("a.xlsx:4", {}, True),
        ("a.xlsx:5", {}, True),
    ]


def test_merged_cells_are_named(here: Path) -> None:
    book = workbook("a.xlsx", [["text", "label"], ["a", "x"], ["b", None]])
    book.active.merge_cells("B2:B3")
    book.save("a.xlsx")
    for way in (lambda: read("excel", "a.xlsx"), lambda: open_file(Path("a.xlsx"), None, "utf-8", "text")):
        with pytest.raises(UserError, match=r"must have no merged cells, got B2:B3"):
            way()


def test_of_several_sheets_one_is_named(here: Path) -> None:
    book = workbook("a.xlsx", [["text"], ["a"]], sheet="one")
    book.create_sheet("empty")
    hidden = book.create_sheet("hidden")
    hidden.sheet_state = "hidden"
    hidden.append(["text"])
    hidden.append(["h"])
    book.save("a.xlsx")
    assert read("excel", "a.xlsx").columns == {"text": ["a"]}
    assert read("excel", "a.xlsx", sheet="hidden").columns == {"text": ["h"]}
    with pytest.raises(UserError, match=r"must have the sheet 'Two', got one, empty, hidden. Write dataset.sheet=NAME"):
        read("excel", "a.xlsx", sheet="Two")
    hidden.sheet_state = "visible"
    book.save("a.xlsx")
    with pytest.raises(UserError, match=r"must have one sheet with rows, got 2: one, hidden. Write dataset.sheet=NAME"):
        read("excel", "a.xlsx")


def test_a_broken_workbook_is_named(here: Path, write: Write) -> None:
    workbook("a.xlsx", [["text"], ["a"]])
    content = Path("a.xlsx").read_bytes()
    write("b.xlsx", content[: len(content) // 2])
    with pytest.raises(UserError, match=r"b.xlsx +is"):
        read("excel", "b.xlsx")
    put("a.xlsx", "</row>", "<row>")
    with pytest.raises(UserError, match=r"a.xlsx +is not a complete Excel workbook"):
        read("excel", "a.xlsx")
    workbook("c.xlsx", [["text", "text"], ["a", "b"]])
    with pytest.raises(UserError, match=r"two columns are called 'text'"):
        read("excel", "c.xlsx")


def database(name: str, *statements: str) -> None:
    with sqlite3.connect(name) as found:
        for statement in statements:
            found.execute(statement)


TWO = ("create table a (text, label)", "create table b (x)", "insert into a values ('one', 1), ('two', 2.0)")


def test_a_query_of_a_database(here: Path) -> None:
    database("a.db", *TWO)
    assert read("sqlite", "a.db", query="select text, label from a order by text desc").columns == {
        "text": ["two", "one"],
        "label": ["2", "1"],
    }
    with pytest.raises(UserError, match=r"must have one table, got 2: a, b. Write dataset.query='select \* from a'"):
        read("sqlite", "a.db")


QUERIES = [
    ("drop table a", "not authorized.*A query may only select"),
    ("insert into a values (1, 2)", "not authorized"),
    ("attach 'new.db' as n", "not authorized"),
    ("pragma journal_mode=wal", "not authorized"),
    ("select load_extension('x')", "not authorized"),
    ("select 1; drop table a", "one statement at a time"),
    ("select * from nowhere", "no such table: nowhere"),
    ("select text, text from a", "two columns are called 'text'"),
    ("select x'00ff' as bytes from a", "a.db:1 +bytes must hold texts or numbers, got bytes"),
    ("select cast(x'ff' as text) as t from a", "Could not decode to UTF-8"),
]


@pytest.mark.parametrize(("query", "what"), QUERIES)
def test_what_a_query_may_not(query: str, what: str, here: Path) -> None:
    database("a.db", *TWO)
    before = Path("a.db").read_bytes()
    with pytest.raises(UserError, match=what):
        read("sqlite", "a.db", query=query)
    assert Path("a.db").read_bytes() == before
    assert [file.name for file in here.iterdir()] == ["a.db"]


def test_what_lies_beside_a_database_is_not_overlooked(here: Path) -> None:
    """Rows that are in the write-ahead log alone are not part of the file, nor of its digest."""
    open_one = sqlite3.connect("a.db")
    open_one.execute("pragma journal_mode=wal")
    open_one.execute("create table t (text)")
    open_one.commit()
    with pytest.raises(UserError, match=r"has changes in a.db-wal that are not yet in it"):
        read("sqlite", "a.db")
    open_one.close()
    assert read("sqlite", "a.db").columns == {}


def test_a_database_in_a_folder_of_any_name(here: Path) -> None:
    place = here / "a?b%20 #ü"
    place.mkdir()
    database(str(place / "a.db"), "create table t (text)", "insert into t values ('x')")
    assert read("sqlite", str(place / "a.db")).columns == {"text": ["x"]}


SAVED = Features({"text": Value("string"), "label": ClassLabel(names=["差", "好"]), "tags": List(ClassLabel(names=["O", "B"]))})  # fmt: skip


def test_what_save_to_disk_left(here: Path) -> None:
    """In the order of its shards, classes by name; what `map` kept beside them is not part of it."""
    rows = {"text": [f"t{i}" for i in range(5)], "label": [0, 1, 1, -1, 0], "tags": [[0, 1]] * 5}
    saved = Dataset.from_dict(rows, features=SAVED)
    saved.save_to_disk("d", num_shards=2)
    Path("d/cache-00ff.arrow").write_bytes(Path("d/data-00000-of-00002.arrow").read_bytes())
    table = read("arrow", "d")
    assert table.columns == {
        "text": rows["text"],
        "label": ["差", "好", "好", None, "差"],
        "tags": [["O", "B"]] * 5,
    }
    assert table.ids == [f"data-00000-of-00002.arrow:{i}" for i in (1, 2, 3)] + [
        f"data-00001-of-00002.arrow:{i}" for i in (1, 2)
    ]
    assert [
        row.values["label"] for row in open_file(Path("d/data-00001-of-00002.arrow"), None, "utf-8", None).rows
    ] == [
        None,
        "差",
    ]


def test_classes_in_parquet_and_arrow_have_their_names(here: Path) -> None:
    """Also inside of lists and objects, as boxes are kept on the hub; another file's metadata changes nothing."""
    kind = ClassLabel(names=["差", "好"])
    objects = {"bbox": List(List(Value("float64"))), "category": List(kind)}
    features = Features({"label": kind, "tags": List(kind), "objects": objects, "parts": List({"kind": kind})})
    rows = {
        "label": [1, -1],
        "tags": [[0, 1], []],
        "objects": [{"bbox": [[0.0, 1.0, 2.0, 3.0]], "category": [1]}, None],
        "parts": [[{"kind": 0}], []],
    }
    made = Dataset.from_dict(rows, features=features)
    made.to_parquet("a.parquet")
    made.save_to_disk("saved")
    wanted = {
        "label": ["好", None],
        "tags": [["差", "好"], []],
        "objects": [{"bbox": [[0.0, 1.0, 2.0, 3.0]], "category": ["好"]}, None],
        "parts": [[{"kind": "差"}], []],
    }
    found = read("parquet", "a.parquet").columns
    assert {name: found[name] for name in ("label", "tags", "parts")} == {
        n: wanted[n] for n in ("label", "tags", "parts")
    }
    assert found["objects"][0] == wanted["objects"][0]
    assert read("arrow", "saved").columns["objects"][0] == wanted["objects"][0]
    plain = pyarrow.table({"label": [0, 1]}).replace_schema_metadata({b"huggingface": b"{broken"})
    pyarrow.parquet.write_table(plain, "b.parquet")
    assert read("parquet", "b.parquet").columns == {"label": [0, 1]}


@pytest.mark.parametrize("format", ["arrow", "sqlite"])
def test_chunks_are_found_again(format: str, here: Path) -> None:
    if format == "arrow":
        with pyarrow.OSFile("a", "wb") as sink, pyarrow.ipc.new_file(sink, pyarrow.schema({"n": pyarrow.int64()})) as out:  # fmt: skip
            for first in (0, 700, 1400):
                out.write(pyarrow.record_batch({"n": range(first, first + 700)}))
    else:
        database("a", "create table t (n)", "with recursive c(n) as (select 0 union all select n + 1 from c where n < 2099) insert into t select n from c")  # fmt: skip
    config = of(format)
    found = list(chunks(config, files_of(config, "train", "a")))
    assert [int(n) for _, _, table in found for n in table.columns["n"]] == list(range(2100))
    for source, mark, table in found:
        assert next(source.chunks(mark))[1] == table


def test_a_folder_of_texts_by_class(write: Write) -> None:
    files = {"d/pos/1.txt": "gut\n", "d/neg/1.txt": "schlecht\r\nsehr", "d/neg/2.md": "\ufeffübel", "d/README": "x", "d/pos/a/b.txt": "x"}  # fmt: skip
    for name, text in files.items():
        write(name, text)
    write("d/.DS_Store", "x")
    table = read("folder", "d")
    assert table.columns == {"text": ["schlecht\r\nsehr", "übel", "gut"], "label": ["neg", "neg", "pos"]}
    assert table.ids == ["neg/1.txt:1", "2.md:1", "pos/1.txt:1"]
    assert table.left_out == {"other files were left out: texts are read from CLASS/NAME.txt": 2}
    write("d/pos/3.txt", b"\xff\xfe\xfd")
    write("d/pos/4.txt", b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError) as error:
        read("folder", "d")
    assert "4.txt" in str(error.value) and "is an image" in str(error.value)


def test_texts_below_a_folder_are_pointed_at(write: Write) -> None:
    write("d/pos/1.txt", "x")
    with pytest.raises(UserError, match=r"no .txt .* file in d. There are some below it, in pos: .* dataset=folder"):
        read("text", "d", unit="line")
    with pytest.raises(UserError, match=r"There are some below it, in d/pos: name such a folder.$"):
        read("folder", ".")


def test_a_run_reads_them(write: Write) -> None:
    for number in range(40):
        write(f"d/{'ab'[number % 2]}/{number}.txt", f"text {number}")
    data = load(of("folder", train="d"), Texts())
    assert sorted(data["train"]["label"][:]) == ["a"] * 16 + ["b"] * 16
    assert len(data.digests) == 40


def test_predict_reads_them(here: Path, write: Write) -> None:
    write("a.csv", CSV)
    workbook("a.xlsx", [HEADER, *ROWS])
    wanted = [row.values for row in open_file(Path("a.csv"), None, "utf-8", "text").rows]
    assert [row.values for row in open_file(Path("a.xlsx"), None, "utf-8", "text").rows] == wanted
    write("a.csv.gz", gzip.compress(CSV.encode()))
    assert [row.values for row in open_file(Path("a.csv.gz"), None, "utf-8", "text").rows] == wanted
    database("a.db", *TWO)
    rows = open_file(Path("a.db"), None, "utf-8", "text", query="select text from a")
    assert (rows.columns, [row.values["text"] for row in rows.rows]) == (["text"], ["one", "two"])
    write("a.jsonl", json.dumps({"text": "a"}))
    with pytest.raises(UserError, match=r"is a SQLite database. Write predict.input_format=sqlite"):
        open_file(Path("a.db"), "csv", "utf-8", "text")
