"""SQuAD's JSON: a row a question, and what is missing by its path."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.config.load import load as compose
from llmft.data.annotated import SquadFile
from llmft.data.pipeline import Data, load
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from llmft.tasks.text.config import QuestionAnswering as Options
from llmft.tasks.text.question_answering import QuestionAnswering

Write = Callable[[str, str | bytes], Path]


def tree(*paragraphs: Any) -> str:
    return json.dumps({"version": "1.1", "data": [{"title": "T", "paragraphs": list(paragraphs)}]}, ensure_ascii=False)


def question(text: str = "Who?", **keys: Any) -> dict[str, Any]:
    return {"question": text, "answers": [{"text": "Ada", "answer_start": 0}], **keys}


def read(write: Write, text: str | bytes) -> Any:
    ((_, table),) = SquadFile(write("a.json", text), "a.json", "utf-8").chunks()
    return table


def test_a_row_is_a_question_named_by_its_id_or_its_number(write: Write) -> None:
    first = {
        "context": "Ada met 李白. 🎉",
        "qas": [question(id="q-1"), question("谁？", is_impossible=True, answers=[])],
    }
    second = {
        "context": "Ada left.",
        "qas": [question("Which?", id=7, is_impossible=False), question("None?", answers=None)],
    }
    table = read(write, b"\xef\xbb\xbf" + tree(first, second).encode())
    assert table.ids == ["a.json:q-1", "a.json:2", "a.json:7", "a.json:4"]
    assert table.columns == {
        "id": ["q-1", None, 7, None],
        "title": ["T"] * 4,
        "question": ["Who?", "谁？", "Which?", "None?"],
        "context": ["Ada met 李白. 🎉"] * 2 + ["Ada left."] * 2,
        "answers": [[{"text": "Ada", "answer_start": 0}], [], [{"text": "Ada", "answer_start": 0}], None],
    }


PARAGRAPH = {"context": "Ada left.", "qas": [question()]}
BROKEN: dict[str, tuple[str, str]] = {
    "no JSON": ('{"data": [}', "a.json:1  is not JSON: Expecting value"),
    "a list": (
        '[{"question": "Who?"}]',
        "a.json  is not an object with the key 'data', as SQuAD's files are. Rows with",
    ),
    "no data": ('{"version": 1}', "a.json  has no list 'data'"),
    "no object": ('{"data": [1]}', "a.json:data[0]  is not an object"),
    "no paragraphs": ('{"data": [{"title": "T"}]}', "a.json:data[0]  has no list 'paragraphs'"),
    "no context": (tree(PARAGRAPH, {"qas": [question()]}), "a.json:data[0].paragraphs[1]  has no text 'context'"),
    "no qas": (tree({"context": "Ada"}), "a.json:data[0].paragraphs[0]  has no list 'qas'"),
    "no question": (
        tree({"context": "Ada", "qas": [question(), {"id": "x", "question": 3}]}),
        "a.json:data[0].paragraphs[0].qas[1]  has no text 'question'",
    ),
    "impossible with answers": (
        tree({"context": "Ada", "qas": [question(is_impossible=True)]}),
        "a.json:data[0].paragraphs[0].qas[0]  must have no answers if is_impossible is true",
    ),
    "one id twice": (
        tree({"context": "Ada", "qas": [question(id="x"), question(id="x")]}),
        "a.json:x  two questions have this id",
    ),
    "latin-1": (tree({"context": "café", "qas": []}), "a.json:1  is not utf-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_said_by_its_path(name: str, write: Write) -> None:
    text, what = BROKEN[name]
    with pytest.raises(UserError) as error:
        read(write, text.encode("latin-1"))
    (problem,) = error.value.problems
    assert f"{problem.key}  {problem}".startswith(what)


def test_all_that_is_missing_is_said_at_once(write: Write) -> None:
    with pytest.raises(UserError) as error:
        read(write, tree({"qas": [question()]}, {"context": "Ada"}, PARAGRAPH))
    assert len(error.value.problems) == 2


def test_no_split_parts_a_context(write: Write) -> None:
    paragraphs = [
        {"context": f"Ada met number {i}.", "qas": [question(f"Who {j}?") for j in range(5)]} for i in range(20)
    ]
    write("a.json", tree(*paragraphs))
    config = compose("finetune", ["+recipe=bert_qa", "dataset=squad", "dataset.train=a.json"]).dataset
    data = load(config, QuestionAnswering(Options()))
    contexts = [set(rows["context"]) for rows in data.splits.values()]
    assert [len(found) for found in contexts] == [16, 2, 2]
    assert len(set.union(*contexts)) == 20
    assert sum(len(rows) for rows in data.splits.values()) == 100


@pytest.fixture(scope="module")
def questions() -> Data:
    return load(compose("finetune", ["+recipe=bert_qa"]).dataset, QuestionAnswering(Options()))


def test_the_questions_that_come_with_llmft_are_as_their_card_says(questions: Data) -> None:
    import llmft

    folder = Path(llmft.__file__).parent / "samples/questions"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 150_000
    card = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    sizes = {name: len(rows) for name, rows in questions.splits.items()}
    assert f"{sum(sizes.values())} questions" in card
    assert "{train} to train on, {validation} to validate, {test} to test".format(**sizes) in card
    contexts = {name: set(rows["context"]) for name, rows in questions.splits.items()}
    assert f"on {sum(map(len, contexts.values()))} short texts" in card
    first = {name: {text.split()[0] for text in found} for name, found in contexts.items()}
    assert not (first["train"] & first["test"] or first["train"] & first["validation"])
    assert questions.notes == [], "no input stands twice"
    task = QuestionAnswering(Options())
    assert all(task.check(rows, name) == [] for name, rows in questions.splits.items())


def test_squad_itself_is_read(shared: Callable[[str], Path]) -> None:
    folder = shared("squad_v1.1")
    keys = {"train": "train-v1.1-subset.json", "validation": "xquad.en.json", "test": "dev-v1.1-subset.json"}
    data = load(
        DatasetConfig.model_validate({"format": "squad", "path": str(folder), "max_overlap": 1.0, **keys}),
        QuestionAnswering(Options()),
    )
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 3939, "validation": 1190, "test": 700}
    task = QuestionAnswering(Options())
    assert all(task.check(rows, name) == [] for name, rows in data.splits.items())
    assert len(set(data["test"]["id"])) == 700
    assert max(len(task.reference(row)) for row in data["test"]) > 1
