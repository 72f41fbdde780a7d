"""The corpus of `dataset.corpus`: every format, repeated and empty passages, ids, and errors; and BM25 over it."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.data.passages import Passages, read_passages
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from llmft.tasks.text.search import Bm25, load_search, terms

SQUAD = {"data": [{"title": "Old_Bridge", "paragraphs": [{"context": " It was built in 1842. ", "qas": []}, {"context": "No one crossed it.", "qas": []}]}]}  # fmt: skip


def read(folder: Path, *names: str, **keys: object) -> Passages:
    return read_passages(DatasetConfig(corpus=[str(folder / name) for name in names], **keys))


@pytest.mark.parametrize(
    ("name", "content", "ids", "titles", "texts"),
    [
        ("a.csv", "id,title,text\nx,T,one\n007,,two\n", ["x", "007"], ["T", ""], ["one", "two"]),
        ("a.csv", "passage\none\ntwo\n", ["a.csv:2", "a.csv:3"], ["", ""], ["one", "two"]),
        ("a.tsv", "note\nsingle column\n", ["a.tsv:2"], [""], ["single column"]),
        ("a.jsonl", '{"_id": "d1", "title": "T", "text": "one"}\n{"_id": "d2", "text": "两"}\n', ["d1", "d2"], ["T", ""], ["one", "两"]),
        ("a.json", '[{"id": 3, "contents": "one"}]', ["3"], [""], ["one"]),
        ("a.json", json.dumps(SQUAD), ["a.json:data[0].paragraphs[0]", "a.json:data[0].paragraphs[1]"], ["Old Bridge"] * 2, ["It was built in 1842.", "No one crossed it."]),
        ("a.txt", "one\ntwo\n\nthree\n", ["a.txt:1", "a.txt:4"], ["", ""], ["one\ntwo", "three"]),
        ("a.md", "# 标题\n\n正文\n", ["a.md:1", "a.md:3"], ["", ""], ["# 标题", "正文"]),
    ],
)  # fmt: skip
def test_every_format_gives_passages(tmp_path: Path, name: str, content: str, ids: list[str], titles: list[str], texts: list[str]) -> None:  # fmt: skip
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = read(tmp_path, name, unit="paragraph", format="squad")  # the format of the rows does not matter
    assert (found.ids, found.titles, found.texts) == (ids, titles, texts)


def test_files_of_several_formats_make_one_corpus_without_repeats(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,one\n2,\n3, one \n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"id": ["4", "5"], "text": ["one", "two"]}), tmp_path / "b.parquet")
    (tmp_path / "ignored.bin").write_bytes(b"\0")
    found = read_passages(DatasetConfig(corpus=str(tmp_path)))
    assert (found.ids, found.texts) == (["1", "5"], ["one", "two"])
    assert found.notes == ["corpus: 2 passages; left out: 2 passages twice; left out: 1 passage empty"]
    assert {Path(file).name for file in found.digests} == {"a.csv", "b.parquet"}
    found.save(tmp_path / "c.jsonl")
    again = Passages.load(tmp_path / "c.jsonl")
    assert (again.ids, again.titles, again.texts) == (found.ids, found.titles, found.texts)
    assert read(tmp_path, "c.jsonl").texts == found.texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,text\n1,one\n1,two\n", "a.csv:3 has the id '1' of the passage at a.csv:2"),
        ("a.csv", "id,text\n1, \n", "must hold passages, got 0"),
        ("a.csv", "from,to\none,two\n", "must have a column text, passage, context, contents, content, body, or document with the passages, got from, to"),
        ("a.json", '{"data": [{"paragraphs": [{"text": "one"}]}]}', "a.json:data[0].paragraphs[0] has no text 'context'"),
        ("a.exe", "x", "must be a file of passages, got the ending '.exe'"),
        ("a.jsonl", '{"text": "one"}\n{"text": \n', "a.jsonl:2"),
    ],
)  # fmt: skip
def test_a_corpus_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read(tmp_path, name)
    assert message in f"{error.value.problems[0].key} {error.value.problems[0].what}"


def test_terms_of_any_script() -> None:
    assert terms("Who BUILT it?") == ["who", "built", "buil*", "it"]
    assert terms("在北京大学 x1") == ["在北", "北京", "京大", "大学", "x1"]
    assert terms("用Python写") == ["用", "python", "pyth*", "写"]
    assert terms("ﬁne") == ["fine"]
    assert terms("हिन्दी") == ["हिन्दी", "हिन्*"]  # vowel signs are parts of a word
    assert terms("ไทย") == ["ไท", "ทย"]
    assert terms("?! …") == []


def test_bm25_finds_passages_in_any_script(tmp_path: Path) -> None:
    texts = [
        "The bridge was invaded in 1842.",
        "Nobody lives here.",
        "北京大学的图书馆建于1898年。",
        "上海的桥很长。",
        "nothing of it",
    ]
    search = Bm25(Passages(list("abcde"), texts, ["", "The moon", "", "", ""]))
    questions = ["When was the invasion of the bridge?", "北京大学图书馆是什么时候建的？", "who is on the moon", "??"]
    places, scores = search.search(questions, 2)
    assert places[:3, 0].tolist() == [0, 2, 1]
    assert places[3].tolist() == [0, 1]  # nothing is found: the order of the corpus
    assert scores[3].tolist() == [0, 0]
    assert search.search(questions, 9)[0].shape == (4, 5)
    search.save(tmp_path)
    loaded = load_search(tmp_path)
    assert loaded is not None
    assert (loaded.search(questions, 5)[0] == search.search(questions, 5)[0]).all()


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(" ".join), min_size=1, max_size=8))
def test_the_best_passages_do_not_depend_on_how_many_are_asked_for(texts: list[str]) -> None:
    """Many scores are equal here."""
    search = Bm25(Passages([str(n) for n in range(len(texts))], texts, [""] * len(texts)))
    whole, scores = search.search(["a b"], len(texts))
    order = sorted(range(len(texts)), key=lambda at: (-scores[0, at], whole[0, at]))
    assert order == list(range(len(texts)))
    assert sorted(whole[0].tolist()) == order
    for count in range(1, len(texts)):
        assert search.search(["a b"], count)[0][0].tolist() == whole[0, :count].tolist()
