"""Rows in files of JSON: in lists of one object, and as other programs export them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.data.read import read_split
from llmft.data.source import Table
from llmft.predictions.rows import open_file
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from llmft.tasks.text.sentences import sentence_of

Write = Callable[[str, str | bytes], Path]
ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
COLUMNS = {"text": ["a", "b"], "label": ["x", "y"]}


def read(name: str, **keys: Any) -> Table:
    return read_split(DatasetConfig.model_validate({"format": "json", **keys}), "train", name)[0]


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


GOOD: list[tuple[str, str, dict[str, Any]]] = [
    ("a.json", json.dumps({"data": ROWS}), {}),
    ("a.json", json.dumps({"version": "1", "data": ROWS, "tags": ["a", "b", "c"]}, indent=2), {}),
    ("a.jsonl", json.dumps({"rows": ROWS}, indent=1), {}),  # it goes on in the next line: no file of lines
    ("a.json", json.dumps({"a": ROWS, "b": [{"c": 1}]}), {"field": "a"}),
    ("a.json", json.dumps({"meta": {"rows": ROWS}}), {"field": "meta.rows"}),
    ("a.json", json.dumps(ROWS, indent=2), {}),
    ("a.json", lines(*ROWS), {}),  # lines in spite of the ending
    ("a.json", "\n\n" + lines(*ROWS), {}),
    ("a.json", "\ufeff" + json.dumps({"data": ROWS}), {}),
]


@pytest.mark.parametrize(("name", "text", "keys"), GOOD)
def test_rows_are_found(name: str, text: str, keys: dict[str, Any], write: Write) -> None:
    write(name, text)
    table = read(name, **keys)
    assert {name: table.columns[name] for name in COLUMNS} == COLUMNS
    rows = list(open_file(Path(name), None, "utf-8", "text", field=keys.get("field")).rows)
    assert [row.values for row in rows] == ROWS


def test_keys_beside_the_rows_are_mentioned(write: Write) -> None:
    write("a.json", json.dumps({"version": "1", "data": ROWS, "info": {}}))
    assert read("a.json").left_out == {"keys beside the rows of a.json were not read: version, info": 2}


ONE = [
    ("a.json", {"text": "a", "label": "x"}),
    ("a.json", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
    ("a.json", {"conversations": [{"from": "human", "value": "a"}]}),
    ("a.jsonl", {"data": [{"a": 1}]}),
]


@pytest.mark.parametrize(("name", "row"), ONE)
def test_one_row_is_one_row(name: str, row: dict[str, Any], write: Write) -> None:
    write(name, json.dumps(row))
    assert read(name).columns == {key: [value] for key, value in row.items()}


BAD: list[tuple[Any, dict[str, Any], str]] = [
    ({"a": ROWS, "b": ROWS}, {}, "is one object, with lists of objects under 'a' and 'b'. Write dataset.field=NAME"),
    ({"a": ROWS}, {"field": "b"}, "has no 'b' as dataset.field=b says; it has a"),
    ({"a": {"b": 1}}, {"field": "a.b"}, "has no list under dataset.field=a.b"),
    ({"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}}, {}, "holds columns, not rows. Write it by df.to_json"),
    ({"text": ["a", "b"], "label": ["x", "y"]}, {}, "holds columns, not rows"),
    ({"data": [*ROWS, 1]}, {"field": "data"}, "a.json:3 +is not a JSON object"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "keys", "what"), BAD)
def test_what_is_not_clear_is_refused(value: Any, keys: dict[str, Any], what: str, write: Write) -> None:
    write("a.json", json.dumps(value))
    with pytest.raises(UserError, match=what):
        read("a.json", **keys)


TEXT = "😀 Ann Lee lives in 北京."
SPANS = [(2, 9, "person"), (19, 21, "place")]
ENTITIES = [
    {"text": "Ann Lee", "label": "person", "start": 2, "end": 9},
    {"text": "北京", "label": "place", "start": 19, "end": 21},
]


def studio(**more: Any) -> dict[str, Any]:
    """A task of Label Studio, whose spans are counted in UTF-16: the emoji is two."""
    found = [
        {"type": "labels", "to_name": "text", "from_name": "label", "value": {"start": s + 1, "end": e + 1, "text": TEXT[s:e], "labels": [label]}}
        for s, e, label in SPANS
    ]  # fmt: skip
    skipped = {"result": [], "was_cancelled": True}
    return {"id": 7, "data": {"text": TEXT}, "annotations": [skipped, {"result": found}], "predictions": [], **more}


EXPORTS = {
    "doccano.jsonl": lines({"id": 1, "text": TEXT, "label": [list(span) for span in SPANS], "Comments": []}),
    "doccano_old.jsonl": lines({"id": 1, "text": TEXT, "labels": [list(span) for span in SPANS]}),
    "doccano_relations.jsonl": lines({"id": 1, "text": TEXT, "entities": [{"id": i, "start_offset": s, "end_offset": e, "label": label} for i, (s, e, label) in enumerate(SPANS)], "relations": []}),
    "spacy.json": json.dumps([[TEXT, {"entities": SPANS}]]),
    "spacy.jsonl": lines([TEXT, {"entities": SPANS}]),
    "annotator.json": json.dumps({"classes": ["person", "place"], "annotations": [[TEXT, {"entities": SPANS}]]}),
    "studio.json": json.dumps([studio()]),
    "studio_small.json": json.dumps([{"id": 7, "text": TEXT, "label": [{"start": s, "end": e, "text": TEXT[s:e], "labels": [label]} for s, e, label in SPANS]}]),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_are_texts_with_spans(name: str, write: Write) -> None:
    write(name, EXPORTS[name])
    write("none.jsonl", lines({"text": "nobody", "spans": []}))
    task = tasks.build(compose("finetune", ["+recipe=bert_ner"]).task)
    config = {"format": "json", "train": [name, "none.jsonl"] if "spacy" in name else name}
    data = load(DatasetConfig.model_validate(config | {"split": {"validation": 0, "test": 0}}), task)
    assert sentence_of(data["train"][0]).entities == ENTITIES
    row = next(iter(open_file(Path(name), None, "utf-8", "text").rows))
    assert (row.values["text"], row.error) == (TEXT, "")


def test_choices_are_labels(write: Write) -> None:
    def chosen(*names: str) -> dict[str, Any]:
        return {"type": "choices", "value": {"choices": list(names)}}

    rows = [
        {"data": {"body": "a", "id": 3}, "annotations": [{"result": [chosen(*names)]}]} for names in (["x"], ["x", "y"])
    ]
    write("a.json", json.dumps([*rows, {"data": {"body": "b"}, "annotations": []}]))
    assert read("a.json").columns == {"body": ["a", "a", "b"], "id": [3, 3, None], "label": ["x", ["x", "y"], None]}


WRONG = [
    ({"annotations": [{"result": []}, {"result": []}]}, "a.json:1 +must have one annotation, got 2: export one of each task"),
    ({"data": {"text": "another text, as long as that one"}}, "has the span 3 to 10 of 'Ann Lee', and its text has something else there"),
    ({"annotations": [{"result": [{"type": "rectanglelabels", "value": {}}]}]}, "must have annotations of the types labels, choices, or relation, got rectanglelabels"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "what"), WRONG)
def test_what_label_studio_leaves_open_is_refused(change: dict[str, Any], what: str, write: Write) -> None:
    write("a.json", json.dumps([studio(**change)]))
    with pytest.raises(UserError, match=what):
        read("a.json")


def test_a_column_of_another_kind_is_no_span(write: Write) -> None:
    """Words with tags, and a label of the sentence beside them."""
    write("a.jsonl", lines({"tokens": ["Ann"], "tags": ["B-person"], "label": ["x"]}))
    task = tasks.build(compose("finetune", ["+recipe=bert_ner"]).task)
    config = DatasetConfig.model_validate({"format": "json", "train": "a.jsonl", "split": {"validation": 0, "test": 0}})
    data = load(config, task)
    assert set(data["train"].column_names) == {"id", "tokens", "tags"}
    assert data.notes == ["train: columns that are not read: label"]
