"""From columns to roles: texts that look like structures, parts of objects, and columns that only count rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from llmft import tasks
from llmft.commands import session
from llmft.commands.label import with_label
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from llmft.schema.tasks import task_types
from llmft.tasks.chat.pairs import pair
from llmft.tasks.text.contexts import read_answers

Write = Callable[..., Path]

ALL = {"validation": 0, "test": 0}


def task_of(name: str) -> Any:
    return tasks.build(task_types()[name](name=name))


def read(task: str, **keys: Any) -> tuple[Any, list[str]]:
    """The rows of train, and the notes on them."""
    data = load(DatasetConfig.model_validate({"split": ALL, **keys}), task_of(task))
    return data["train"], data.notes


LOOK_LIKE = ['{"name": "Ann"}', "[0, 1]", "[101]", "{}", "[]", '"quoted"', "null", "12", "[sic]", '[{"a": 1}]', "true"]


@pytest.mark.parametrize("format", ["json", "csv", "parquet"])
def test_a_text_that_is_json_is_a_text(format: str, write: Write) -> None:
    contexts = [f"The proof {i} is in {text} here." for i, text in enumerate(LOOK_LIKE)]
    pairs = {"prompt": [f"q {i}" for i in range(len(LOOK_LIKE))], "chosen": LOOK_LIKE, "rejected": LOOK_LIKE[::-1]}
    asked = {"question": LOOK_LIKE, "context": contexts, "answers": LOOK_LIKE}
    for number, columns in enumerate((pairs, asked)):
        rows = list(zip(*columns.values(), strict=True))
        write(f"{number}.json", "".join(f"{json.dumps(dict(zip(columns, row, strict=True)))}\n" for row in rows))
        cells = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
        write(f"{number}.csv", "\n".join([",".join(columns), *map(",".join, cells)]))
        pyarrow.parquet.write_table(pyarrow.table(columns), f"{number}.parquet")
    found, _ = read("preference", format=format, train=f"0.{format}")
    said = [[talk.messages[-1]["content"] for talk in pair(row)] for row in found if row["chosen"] != row["rejected"]]
    assert said == [[one, other] for one, other in zip(LOOK_LIKE, LOOK_LIKE[::-1], strict=True) if one != other]
    found, _ = read("question_answering", format=format, train=f"1.{format}")
    answers = [[span.text for span in read_answers(row["answers"], None, row["context"])] for row in found]
    none = [] if format == "csv" else ["[]"]  # in a csv, an empty list of answers is written so
    assert answers == [none if text == "[]" else [text] for text in LOOK_LIKE]


def test_a_csv_cell_may_hold_the_structure_that_a_role_takes(write: Write) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    other = [messages[0], {"role": "assistant", "content": "b"}]
    cells = ['"' + json.dumps(value).replace('"', '""') + '"' for value in (messages, other)]
    write("a.csv", "chosen,rejected\n" + ",".join(cells))
    assert [talk.messages for talk in pair(read("preference", format="csv", train="a.csv")[0][0])] == [messages, other]
    for cell, texts in {'["a", "b"]': ["a", "b"], '{"text": ["b"]}': ["b"], '[{"text": "a"}]': ["a"], "[]": []}.items():
        write("b.csv", 'question,context,answers\nq,x a y b z,"' + cell.replace('"', '""') + '"\n')
        row = read("question_answering", format="csv", train="b.csv")[0][0]
        assert [span.text for span in read_answers(row["answers"], None, row["context"])] == texts


NESTED = [{"translation": {"en": f"the cat {i}", "de": {"text.x": f"die Katze {i}"}}, "n.a": str(i)} for i in range(3)]


@pytest.mark.parametrize("format", ["json", "parquet"])
def test_a_part_of_an_object_is_a_column(format: str, write: Write) -> None:
    write("a.json", "".join(f"{json.dumps(row)}\n" for row in NESTED))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(NESTED), "a.parquet")
    columns = {"source": "translation.en", "target": "translation.de.text.x"}
    rows, _ = read("translation", format=format, train=f"a.{format}", columns=columns)
    assert rows["source"][:] == ["the cat 0", "the cat 1", "the cat 2"]
    assert rows["target"][:] == [["die Katze 0"], ["die Katze 1"], ["die Katze 2"]]
    rows, _ = read(
        "text_classification", format=format, train=f"a.{format}", columns={"text": "translation.en", "label": "n.a"}
    )
    assert rows["label"][:] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        (
            {"source": "translation.fr"},
            "train has no column 'translation.fr'; it has translation, translation.en, transl",
        ),
        ({}, "Write dataset.columns.source=COLUMN."),
        (
            {"source": "translation"},
            "not a text. Write dataset.columns.source=translation.en or translation.de.",
        ),
    ],
)
def test_an_error_leads_to_the_part(columns: dict[str, str], what: str, write: Write) -> None:
    write("a.json", "".join(f"{json.dumps(row)}\n" for row in NESTED))
    with pytest.raises(UserError) as error:
        read("translation", format="json", train="a.json", columns={"target": "translation.de.text.x", **columns})
    assert what in str(error.value)


FRAMES = {
    "a range": (None, [], ["a"]),
    "numbers": ("__index_level_0__", ["__index_level_0__"], ["a"]),
    "names": ("who", ["who"], ["a"]),
}


@pytest.mark.parametrize("name", FRAMES)
def test_the_index_of_pandas_is_no_feature(name: str, write: Write) -> None:
    """As `DataFrame.to_parquet` writes it: the columns, and JSON in the metadata that says which of them are the index."""
    index, left, features = FRAMES[name]
    columns: dict[str, list[Any]] = {"a": [0.5, 1.5, 2.5, 3.5], "label": ["x", "y", "x", "y"]}
    if index:
        columns[index] = [3, 1, 0, 2]
    said = [index] if index else [{"kind": "range", "name": None, "start": 0, "stop": 4, "step": 1}]
    table = pyarrow.table(columns).replace_schema_metadata({"pandas": json.dumps({"index_columns": said})})
    pyarrow.parquet.write_table(table, "a.parquet")
    rows, notes = read("tabular", format="parquet", train="a.parquet")
    assert [list(row) for row in rows["features"]] == [features] * 4
    about = (
        "which counts or names the rows, is not a feature; if it is one, name all features in dataset.columns.features"
    )
    assert [note for note in notes if "index" in note or "who" in note] == [f"train: {one!r}, {about}" for one in left]
    if index:
        rows, notes = read("tabular", format="parquet", train="a.parquet", columns={"features": ["a", index]})
        assert [list(row) for row in rows["features"]] == [["a", index]] * 4
        assert read(
            "text_classification", format="parquet", train="a.parquet", columns={"text": "label", "label": index}
        )


def test_the_index_of_pandas_is_not_guessed_to_be_the_label(write: Write) -> None:
    """In a parquet file it is the last column, and the last one is the label where none has a telling name."""
    columns = {"a": [1, 2], "kind": ["x", "y"], "__index_level_0__": [0, 1]}
    pyarrow.parquet.write_table(pyarrow.table(columns), "a.parquet")
    found, _ = with_label(compose("finetune", ["+recipe=tabular_mlp", "dataset=parquet", "dataset.train=a.parquet"]))
    assert found.dataset.columns["label"] == "kind"


def test_eval_names_the_command_that_needs_no_labels(write: Write) -> None:
    write("a.csv", "text\na\n")
    config = DatasetConfig(format="csv", test="a.csv")
    with pytest.raises(
        UserError, match=r"no column 'label'; it has text\. .*To answer rows without it: llmft predict RUN"
    ):
        session.read(config, task_of("text_classification"), ("test",))


@pytest.mark.parametrize("header", ["", "Unnamed: 0", "__index_level_0__"])
def test_the_index_of_pandas_in_a_csv_is_no_feature(header: str, write: Write) -> None:
    write("a.csv", f"{header},a,label\n3,0.5,x\n1,1.5,y\n0,2.5,x\n")
    rows, notes = read("tabular", format="csv", train="a.csv")
    assert [list(row) for row in rows["features"]] == [["a"]] * 3
    name = repr(header) if header else "the column without a name"
    assert any(note.startswith(f"train: {name}, which counts or names the rows") for note in notes)
    write("b.csv", "a,Unnamed: 0,label\n3,0.5,x\n1,1.5,y\n")
    rows, _ = read("tabular", format="csv", train="b.csv")
    assert [list(row) for row in rows["features"]] == [["a", "Unnamed: 0"]] * 2, "not the first column"


def test_a_list_written_as_text_is_a_list_of_words(write: Write) -> None:
    """So pandas writes a column of lists into a csv."""
    write("a.csv", "tokens,tags\n\"['Ann', \"\"isn't\"\", 'here']\",\"['B-x', 'O', 'O']\"\nBob ran,O O\n[a] [b],O O\n")
    rows, _ = read("token_classification", format="csv", train="a.csv")
    assert rows["tokens"][:] == [["Ann", "isn't", "here"], ["Bob", "ran"], ["[a]", "[b]"]]
    assert rows["tags"][:] == [["B-x", "O", "O"], ["O", "O"], ["O", "O"]]


def test_lists_written_as_text_are_named_where_texts_are_read(write: Write) -> None:
    what = "has lists written as text, such as"
    write("a.csv", "text,label\n\"['a', 'b']\",x\n[1 2],y\n[sic] a text,x\n")
    notes = read("text_classification", format="csv", train="a.csv")[1]
    assert [note for note in notes if what in note] == [f"train: text {what} ['a', 'b'], and each is read as one text"]
    write("b.csv", 'text,tags,label\na,"[0.5, 1]",x\nb,[2],y\n')
    notes = read("tabular", format="csv", train="b.csv")[1]
    assert [note for note in notes if what in note] == [f"train: tags {what} [0.5, 1], and each is read as one text"]
    write("c.csv", "text,label\n[sic] a text,x\nb,y\n")
    assert not [note for note in read("text_classification", format="csv", train="c.csv")[1] if what in note]
