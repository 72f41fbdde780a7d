"""Text columns of a table: the numbers that they become, what is kept of them, and that models learn from them."""

import json
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from datasets import Dataset
from pydantic import ValidationError

from llmft.commands.label import with_label
from llmft.config.load import load
from llmft.schema.problem import UserError
from llmft.tasks.tables.columns import TableColumns, learn_columns
from llmft.tasks.tables.config import Tabular as Options
from llmft.tasks.tables.tabular import TableState
from llmft.tasks.tables.text_columns import learn_texts
from llmft.tasks.targets.single_label import SingleLabel
from llmft.tasks.text.tfidf import TOKEN

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]


def learnt(table: list[dict[str, Any]], **options: Any) -> TableColumns:
    return learn_columns(table, Options(**options))


def test_values_by_hand() -> None:
    # `min_count=2` leaves `red` in two of four texts and `dog` in three; `red dog`, `cat` and `a` stand in one.
    text = learn_texts(["red RED dog", "dog cat", None, "Dog, a red"], size=8, min_count=2)
    assert text is not None
    assert text.terms == ["dog", "red"]
    red, dog = math.log(5 / 3) + 1, math.log(5 / 4) + 1
    assert text.idf == pytest.approx([dog, red])
    first = numpy.array([dog, (1 + math.log(2)) * red])  # a word that stands twice counts 1 + ln 2
    last = numpy.array([dog, red])
    rows = numpy.array([first / numpy.linalg.norm(first), [1, 0], [0, 0], last / numpy.linalg.norm(last)])
    expected = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    assert text.encode(["red RED dog", "dog cat", None, "Dog, a red"]) == pytest.approx(expected)
    assert text.encode(["", "zebra"]) == pytest.approx(expected[[2, 2]])  # missing, empty or unknown
    assert text.known(["zebra", "my dog", ""]).tolist() == [False, True, False]
    assert text.encode([]).shape == (0, 2)


def test_so_many_numbers_as_there_are_rows_keep_all_that_they_say() -> None:
    texts = ["one two three", "two three four", "five six", "one six", "seven two"]
    fewer, all_of_them = learn_texts(texts, 3, 1), learn_texts(texts, 5, 1)
    plain = learn_texts(texts, 64, 1)
    assert fewer is not None and all_of_them is not None and plain is not None
    assert (fewer.width, all_of_them.width) == (3, 5)
    assert plain.components is None and plain.width == len(plain.terms) > 5

    def unscaled(text: Any) -> numpy.ndarray:
        mean, deviation = numpy.array(text.scales).T
        found: numpy.ndarray = text.encode(texts) * deviation + mean
        return found

    # Rotated and no more: the products of rows stay. Of three numbers they are those of the best such matrix.
    product = unscaled(plain) @ unscaled(plain).T
    assert unscaled(all_of_them) @ unscaled(all_of_them).T == pytest.approx(product, abs=1e-6)
    values, vectors = numpy.linalg.eigh(product)
    best = (vectors[:, 2:] * values[2:]) @ vectors[:, 2:].T
    assert unscaled(fewer) @ unscaled(fewer).T == pytest.approx(best, abs=1e-6)


WORDS = {
    "很好的酒店": ["很", "很 好", "好", "好 的", "的", "的 酒", "酒", "酒 店", "店"],
    "हिन्दी में": ["हिन्दी", "हिन्दी में", "में"],
    "ＡＢＣ Ünï": ["abc", "abc ünï", "ünï"],
    "Cafe\u0301": ["café"],
    "שָׁלוֹם": ["שָׁלוֹם"],
}


@pytest.mark.parametrize("text", WORDS)
def test_words_of_any_script(text: str) -> None:
    column = learn_texts([text, text], size=64, min_count=2)
    assert column is not None
    assert sorted(column.terms) == sorted(WORDS[text])


def test_hindi_vowels_are_part_of_the_word() -> None:
    assert re.findall(TOKEN, "के का। ok") == ["के", "का", "ok"]


ROWS = [
    {"n": n, "what": f"the {('red', 'blue')[n % 2]} one of {n}", "other": f"{n} {n + 1}", "say": None}
    for n in (3, 1, 4, 0, 5, 9, 2, 6)
]


def test_notes_say_what_texts_are() -> None:
    columns = learnt(ROWS, texts=["what", "say"], text_size=4)
    width = columns.texts["what"].width
    assert (columns.num_numbers, width) == (5, 4)
    assert columns.positions()["what"] == {"numbers": [1, 2, 3, 4], "missing": [1, 2, 3, 4]}
    assert columns.notes() == [
        f"columns: 1 number: n; 1 text: what ({len(columns.texts['what'].terms)} terms as 4 numbers)",
        "left out: other (no value stands in 2 rows), say (no word stands in 2 rows)",
    ]
    encoded = columns.encode([{"n": 3, "what": None}, {"n": 3, "what": "the red one of 3"}])
    assert encoded.missing.tolist() == [[0.0] * 5] * 2
    assert not numpy.allclose(encoded.numbers[0, 1:], encoded.numbers[1, 1:])
    assert columns.encode([{"n": 3}]).numbers[0].tolist() == encoded.numbers[0].tolist()


def test_what_is_learnt_is_kept(here: Path) -> None:
    columns = learnt(ROWS, texts=["what", "other"], text_size=4, min_count=1)
    before = TableState(SingleLabel(("a", "b")), columns)
    before.save(here)
    after = TableState.load(here)
    assert after.columns.encode(ROWS).numbers.tolist() == columns.encode(ROWS).numbers.tolist()
    assert json.loads((here / "task.json").read_text())["texts"]["what"]["terms"] == columns.texts["what"].terms
    assert sorted(file.name for file in here.iterdir()) == ["task.json", "texts.safetensors"]
    TableState(SingleLabel(("a", "b")), learnt(ROWS)).save(here)
    assert TableState.load(here).columns.texts == {}


SENTENCES = {
    "different sentences": ([f"number {n} is a good one" for n in range(20)], "of about 6 words"),
    "Chinese without spaces": ([f"这家酒店很好{n}" for n in range(20)], "of about 7 words"),
    "half of them alike": ([f"number {n // 2} is a good one" for n in range(20)], "10 of 20 cells differ"),
    "hardly any differ": ([f"number {n % 5} is a good one" for n in range(20)], ""),
    "names": ([f"Ann von Tal {n}" for n in range(20)], ""),
    "addresses of pages": ([f"https://a.b/c/d/e/f?g={n}&h=1" for n in range(20)], ""),
    "too few": ([f"number {n} is a good one" for n in range(19)], ""),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_free_text_is_named_and_nothing_else(name: str) -> None:
    texts, words = SENTENCES[name]
    columns = learnt([{"n": n % 3, "t": text} for n, text in enumerate(texts)])
    assert not columns.texts
    assert [line for line in columns.notes() if "free text" in line and words in line] == [
        line for line in columns.notes() if line.endswith("to learn from its words, write task.texts=[t]")
    ]
    assert any("free text" in line for line in columns.notes()) == bool(words)


def test_columns_of_free_text_are_named_together() -> None:
    rows = [{"a": text, "b": text, "c": text, "n": n % 3} for n in range(20) for text in [f"number {n} is a good one"]]
    assert learnt(rows, texts=["a"]).notes()[-1] == (
        "b (20 of 20 cells differ, of about 6 words), c (20 of 20 cells differ, of about 6 words) look like free text; "
        "to learn from their words, write task.texts=[a,b,c]"
    )


def test_a_table_of_texts_alone_says_what_to_write() -> None:
    with pytest.raises(UserError) as caught:
        learnt([{"review": f"number {n} is a good one"} for n in range(20)])
    assert "review (no value stands in 2 rows)" in str(caught.value)
    assert "To learn from its words, write task.texts=[review]." in str(caught.value)


def test_texts_unlike_training_are_said() -> None:
    columns = learnt(ROWS, texts=["what"], ignore=["other", "say"])
    rows = [
        {"n": 1, "what": "ein Hund"},
        {"n": 2, "what": "eine Katze"},
        {"n": 3, "what": "one"},
        {"n": 4, "what": None},
    ]
    new = Dataset.from_dict({"features": rows, "id": ["1", "2", "3", "4"]})
    assert columns.notes_of_rows(new, "test") == ["test: 2 of 3 texts of what have no word known from training"]
    lacking = Dataset.from_dict({"features": [{"n": 1}], "id": ["1"]})
    (note,) = columns.notes_of_rows(lacking, "the input")
    assert note == "the input has no column 'what', which counts as missing"
    assert "has no column 'what'" in str(columns.check(lacking, "test")[0])
    assert columns.check(lacking, "test", lenient=True) == []


def test_a_text_may_look_like_anything() -> None:
    rows = [{"t": cell, "n": n} for n, cell in enumerate(["[1, 2]", "3", "true", "31.12.2024", "[1, 2]", "3"])]
    assert learnt(rows, texts=["t"]).texts["t"].terms == ["1", "1 2", "2", "3"]
    with pytest.raises(ValidationError, match="must name a column once, got 't' twice"):
        Options(texts=["t"], ignore=["t"])


def test_a_text_is_not_guessed_to_be_the_label(write: Write) -> None:
    write("t.csv", "a,b,review\n1,x,good one\n2,y,bad one\n")
    config = load("finetune", ["+recipe=tabular_mlp", "dataset=csv", "dataset.train=t.csv", "task.texts=[review]"])
    assert with_label(config)[0].dataset.columns["label"] == "b"


def reviews(rows: int) -> str:
    """A table whose label is in the review alone, in one word of nine."""
    rng = random.Random(0)
    words = {
        "no": ["broken", "dirty", "late", "rude", "cold", "差"],
        "yes": ["lovely", "quiet", "warm", "tasty", "friendly", "好"],
    }
    lines = []
    for _ in range(rows):
        label = rng.choice(["no", "yes"])
        said = [f"w{rng.randrange(30)}" for _ in range(8)]
        said.insert(rng.randrange(9), rng.choice(words[label]))
        lines.append(f"{rng.randrange(99)},{rng.choice('xyz')},{' '.join(said)},{label}\n")
    return "price,shop,review,label\n" + "".join(lines)


def test_trees_learn_from_texts_alone(llmft: Run, write: Write, here: Path) -> None:
    write("t.csv", reviews(450))
    words = ("dataset=csv", "dataset.train=t.csv", "task.texts=[review]", "model.config.max_iter=50", "run.dir=run")
    code, out, err = llmft("finetune", "+recipe=tabular_boosting", *words)
    assert code == 0, err
    assert "1 text: review (" in out
    scores = json.loads((here / "run/metrics.json").read_text())
    assert scores["test"]["accuracy"] > 0.9
    columns = scores["importance"]["columns"]
    assert next(iter(columns)) == "review" and columns["review"] > 0.3 > abs(columns["shop"]) * 10
    code, out, err = llmft("eval", "run", "run.dir=again")
    assert code == 0, err
    again = json.loads((here / "again/metrics.json").read_text())
    assert again["test"]["accuracy"] == scores["test"]["accuracy"]

    asked = [llmft("predict", "run", f"predict.row={{price: 1, shop: x{more}}}") for more in ("", ', review: ""')]
    assert "note: the input has no column 'review', which counts as missing" in asked[0][2]
    assert json.loads(asked[0][1])["scores"] == json.loads(asked[1][1])["scores"]


def test_a_network_learns_from_texts_alone_also_of_a_stream(llmft: Run, write: Write, here: Path) -> None:
    write("t.csv", reviews(450))
    write("v.csv", reviews(500))
    split = ("dataset.train=t.csv", "dataset.validation=v.csv", "dataset.split.test=0", "dataset.max_overlap=1")
    words = ("dataset=csv", *split, "dataset.streaming=true", "task.texts=[review]", "trainer.epochs=8")
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", *words, "task.baseline=false", "run.dir=run")
    assert code == 0, err
    assert json.loads((here / "run/metrics.json").read_text())["validation"]["accuracy"] > 0.9
