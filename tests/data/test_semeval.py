"""The file format of SemEval-2010 Task 8."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.data.annotated import SemevalFile
from llmft.data.pipeline import load
from llmft.data.source import Table
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from llmft.tasks import build
from llmft.tasks.text.config import RelationExtraction

Write = Callable[[str, str | bytes], Path]


def example(number: int, text: str, relation: str = "Other") -> str:
    return f'{number}\t"{text}"\n{relation}\nComment:\n\n'


def read(file: Path, encoding: str = "utf-8") -> Table:
    found = Table()
    for _, table in SemevalFile(file, file.name, encoding).chunks():
        found.extend(table)
    return found


FORMS = {
    "as published": "\ufeff" + example(1, 'A <e1>b</e1> "c"', "X(e1,e2)") + example(20, "很<e2>好</e2>。"),
    "no comments": '1\t"A <e1>b</e1> "c""\nX(e1,e2)\n\n\n\n20\t"很<e2>好</e2>。"\nOther',
    "two comments, spaces": '\n 1 "A <e1>b</e1> "c"" \n X(e1,e2) \nComment: a\nComment: b\n \t\n' + example(20, "很<e2>好</e2>。"),
}  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", FORMS)
def test_examples_are_read(name: str, end: str, write: Write) -> None:
    table = read(write("a.txt", FORMS[name].replace("\n", end)))
    assert table.columns == {"text": ['A <e1>b</e1> "c"', "很<e2>好</e2>。"], "label": ["X(e1,e2)", "Other"]}
    lines = {"as published": (1, 5), "no comments": (1, 6), "two comments, spaces": (2, 7)}[name]
    assert table.ids == [f"a.txt:{line}" for line in lines]


def test_a_chunk_is_read_again_from_its_mark(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmft.data.annotated.CHUNK", 3)
    text = "".join(example(i, f"本{'x' * i}") + "\n" * (i % 3) for i in range(1, 11))
    source = SemevalFile(write("a.txt", text.encode("gb18030")), "a.txt", "gb18030")
    found = list(source.chunks())
    assert [len(table) for _, table in found] == [3, 3, 3, 1]
    for place, (mark, table) in enumerate(found):
        assert next(source.chunks(mark)) == (mark, table)
        assert list(source.chunks(mark)) == found[place:]


GOOD = example(1, "fine")
BROKEN = {
    "a table": (GOOD + "text,label\na,b\n", "a.txt:5  must be a number and a sentence in quotes, as in SemEval. For a table write dataset=csv."),
    "no quotes": (GOOD + "2\tA text.\nOther\n", "a.txt:5  must be a number and a sentence in quotes"),
    "no number": (GOOD + '"A text."\nOther\n', "a.txt:5  must be a number and a sentence in quotes"),
    "no relation at the end": (GOOD + '2\t"A text."\n', "a.txt:5  has no relation in the line below it"),
    "a comment for a relation": (GOOD + '2\t"A text."\nComment:\n\n' + GOOD, "a.txt:5  has no relation in the line below it"),
    "sentences alone": ('1\t"A text."\n2\t"A text."\n3\t"A text."\n', "a.txt:1  has no relation in the line below it"),
    "no empty line": (GOOD.rstrip() + "\n" + GOOD, "a.txt:4  must be a comment, since it follows a relation. Leave an empty line before the next sentence."),
    "NUL": (GOOD + '2\t"A\0"\nOther\n', "a.txt:5  holds NUL characters"),
    "another encoding": (GOOD.encode() + '2\t"caf\xe9"\nOther\n'.encode("latin-1"), "a.txt:5  is not utf-8 (byte 7 of the line is 0xE9). It looks like cp1252"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_by_line(name: str, write: Write) -> None:
    text, what = BROKEN[name]
    with pytest.raises(UserError) as error:
        read(write("a.txt", text))
    assert what in " ".join(str(error.value).replace("  ", "\0").split()).replace("\0", "  ")


def test_faults_are_counted(write: Write) -> None:
    with pytest.raises(UserError, match="and 5 more like these") as error:
        read(write("a.txt", '1\t"A"\n\n\n\n' * 10))
    assert len(error.value.problems) == 6


@pytest.mark.parametrize("streaming", [False, True])
def test_the_real_files_are_read_whole(streaming: bool, shared: Callable[[str], Path]) -> None:
    config = DatasetConfig(
        format="semeval",
        path=str(shared("semeval2010_task8")),
        train="TRAIN_FILE.TXT",
        test="TEST_FILE_FULL.TXT",
        split={"validation": 0},
        streaming=streaming,
    )
    data = load(config, build(RelationExtraction()))
    assert len(data.stream or data["train"]) == 8000
    assert len(data["test"]) == 2717
    assert len(set(data["train"]["label"])) == 19
