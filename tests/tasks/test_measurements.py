"""What is measured of rows and answers, and that no text of a row is kept."""

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from PIL import Image

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.arrow import to_dataset
from llmft.data.source import Table
from llmft.metrics.drift import Drift, Reference
from llmft.tasks.measurements import Meter, Vocabulary, of_answers, tokens, words
from llmft.training.evaluation import Split
from llmft.training.features import encode
from llmft.training.reference import write_reference


@pytest.mark.parametrize(
    ("text", "length", "found"),
    [
        ("It's BROKEN, twice!", 7, ["it", "s", "broken", "twice"]),
        ("房间很大。", 5, ["房", "间", "很", "大"]),
        ("यह के लिए है", 4, ["यह", "के", "लिए", "है"]),
        ("می‌خواهم", 1, ["می‌خواهم"]),
        ("İstanbul 2024", 2, ["i̇stanbul", "2024"]),
        ("", 0, []),
    ],
)
def test_words_of_any_script(text: str, length: int, found: list[str]) -> None:
    assert len(tokens(text)) == length
    assert words(tokens(text)) == found


def test_the_length_of_a_long_text_follows_from_its_beginning() -> None:
    task = tasks.build(compose("finetune", ["+recipe=bert_textcls", "smoke=true"]).task)
    task.state = SimpleNamespace(pair=False)  # type: ignore[assignment]
    found = Meter(task, None).measure(Table({"text": ["four " * 20_000, "four"]}, ["a", "b"]), [{}, {}])
    assert found["length"] == [20_000, 1]


def test_words_of_five_rows_are_known() -> None:
    texts = ["good good room"] * 4 + ["good bed, room"]
    vocabulary = Vocabulary.learn(texts, "salt")
    assert vocabulary
    assert vocabulary.new_share(["good", "room", "bed", "tv"]) == 0.5
    assert vocabulary.new_share([]) is None
    assert Vocabulary.learn(texts[:4], "salt") is None
    again = Vocabulary.of_facts(json.loads(json.dumps(vocabulary.facts())))
    assert again
    assert again.hashes == vocabulary.hashes
    other = Vocabulary.learn(texts, "pepper")
    assert other
    assert other.hashes.isdisjoint(vocabulary.hashes)


@pytest.mark.parametrize(
    ("answer", "measured"),
    [
        ({"answer": "a", "scores": {"a": 0.75, "b": 0.25}}, {"answer": "a", "confidence": 0.75}),
        ({"answer": ["b", "a"], "scores": {"a": 0.5, "b": 0.75, "c": 0.25}}, {"answer": "a, b", "confidence": 2 / 3}),
        ({"answer": [], "scores": {"a": 0.25}}, {"answer": "none", "confidence": 0.75}),
        ({"answer": 2.5}, {"number": 2.5}),
        ({"answer": float("nan")}, {}),
        ({"answer": None}, {}),
        ({"answer": "in two words", "score": 0.5}, {"answer length": 3, "confidence": 0.5}),
        ({"answer": "Ja."}, {"answer length": 2}),
        ({"answer": "a cat", "scores": [{"cat": 0.5, "dog": 0.25}]}, {"answer length": 2}),
        ({"answer": []}, {"parts": 0, "answer": "none", "confidence": None}),
        (
            {
                "answer": [
                    {"label": "cat", "score": 0.5},
                    {"label": "ant", "score": 1.0},
                    {"label": "cat", "score": 0.0},
                ]
            },
            {"parts": 3, "answer": "ant, cat", "confidence": 0.5},
        ),
        ({"answer": {"sky": 0.75, "sea": 0.25}, "mask": "…"}, {"answer": "sky", "confidence": 0.75}),
    ],
)
def test_an_answer_is_measured_by_its_form(answer: dict[str, Any], measured: dict[str, Any]) -> None:
    assert of_answers([answer]) == {name: [value] for name, value in measured.items()}


def test_columns_of_a_table() -> None:
    config = compose("finetune", ["+recipe=tabular_mlp", "task.min_count=2", "task.texts=[note]"])
    table = [
        {
            "age": str(20 + row % 7),
            "job": ("clerk", "cook", "")[row % 3],
            "since": f"2024-01-{1 + row % 9:02}",
            "note": "a b",
        }
        for row in range(60)
    ]
    labels = ["yes" if row % 2 else "no" for row in range(60)]
    rows = to_dataset(Table({"features": table, "label": labels}, [f"t.csv:{row}" for row in range(60)]))
    task = tasks.build(config.task).fit(rows, config.model)
    new = [{"age": "31", "job": "pilot", "since": "2024-02-01", "note": "one two three"}, {"age": "", "job": "cook"}]
    found = Meter(task, None).measure(
        Table({"features": new}, ["1", "2"]), [{"answer": "yes", "scores": {"yes": 1.0}}] * 2
    )
    day = (numpy.datetime64("2024-02-01") - numpy.datetime64("1970-01-01")).astype(float)
    assert found == {
        "column age": [31.0, None],
        "column since": [day, None],
        "column note": [3, None],
        "column job": ["new", "cook"],
        "answer": ["yes", "yes"],
        "confidence": [1.0, 1.0],
    }


def test_images_have_a_size_and_a_brightness() -> None:
    config = compose("finetune", ["+recipe=mnist_mlp", "task.size=8"])
    task = tasks.build(config.task)
    stream = io.BytesIO()
    Image.new("L", (30, 20), 51).save(stream, "PNG")
    cell = {"path": None, "bytes": stream.getvalue()}
    rows = Table({"image": [cell]}, ["a"])
    found = Meter(task, None).measure(rows, [{"answer": 1.0}], [bytes([51] * 64)])
    assert found == {"width": [30], "height": [20], "brightness": [0.2], "number": [1.0]}
    assert "brightness" not in Meter(task, None).measure(rows, [{"answer": 1.0}])


def test_a_reference_of_texts_keeps_none_of_them(here: Path) -> None:
    config = compose("finetune", ["+recipe=bert_textcls", "smoke=true"])
    task = tasks.build(config.task)
    made = task.synthetic_rows(120, seed=0)
    rows = to_dataset(Table(made, [f"a:{row}" for row in range(120)]))
    task = task.fit(rows, config.model)
    held = rows.select(range(60))
    splits = {"train": Split(rows, None), "validation": Split(held, encode(task, held))}
    answers = [{"answer": label, "scores": {"bad": 0.5, "good": 0.5}} for label in held["label"]]
    write_reference(task, splits, "validation", answers, "0" * 64, here)
    text = (here / "reference.json").read_text()
    assert not [word for sentence in made["text"] for word in sentence.split() if f'"{word}"' in text]
    reference = Reference.load(here)
    assert reference
    assert (reference.split, reference.rows) == ("validation", 60)
    assert set(reference.measurements) == {"length", "new words", "answer", "confidence"}
    assert len(base64.b64decode(reference.words["hashes"])) == 4 * 16
    meter, drift = Meter.of_reference(task, reference), Drift(reference)
    strange = meter.measure(Table({"text": ["entirely other words"] * 50}, ["a"] * 50), answers[:50])
    drift.update(strange)
    assert strange["new words"] == [1.0] * 50
    assert "new words" in {each["name"] for each in drift.state()["statistics"] if each["alarm"]}


def test_a_few_rows_are_no_reference(here: Path) -> None:
    config = compose("finetune", ["+recipe=bert_textcls", "smoke=true"])
    task = tasks.build(config.task)
    rows = to_dataset(Table(task.synthetic_rows(49, seed=0), [f"a:{row}" for row in range(49)]))
    write_reference(task, {"test": Split(rows, None)}, "test", [], "", here)
    assert not (here / "reference.json").exists()
