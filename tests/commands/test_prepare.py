"""Prepared data from the cache are those that would be prepared now."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig

from llmft import tasks
from llmft.commands import prepare as module
from llmft.commands.prepare import prepare
from llmft.config.load import load as compose
from llmft.data.cache import Entry
from llmft.models.tokenizers import train
from llmft.schema.model import TokenizerConfig
from tests.tasks.cases import CASES

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
LINES = 60
TABLE = "text,colour,label\n" + "".join(f"word{i} a b,{'red' if i % 3 else 'blue'},{i % 2}\n" for i in range(60))


def words(recipe: str) -> list[str]:
    """A run whose tokenizer is trained here, where that is asked for."""
    own = ["model=random", "model.architecture=bert"] if recipe == "bert_textcls" else []
    return [f"+recipe={recipe}", *own, "smoke=true", "dataset=csv", "dataset.train=a.csv"]


def told(folder: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [{key: value for key, value in event.items() if key != "time"} for event in events]


# A feature a row, a table, features with something aside, and blocks of raw text.
@pytest.mark.parametrize("name", ["text_classification", "tabular", "question_answering", "causal_lm"])
def test_a_run_from_the_cache_is_the_same_run(name: str, llmft: Run, write: Write, here: Path) -> None:
    case = CASES[name]
    columns = tasks.build(compose(case.command, [f"+recipe={case.recipe}"]).task).synthetic_rows(LINES, seed=0)
    if "answers" in columns:  # made as text; in a JSON file it is an object
        columns["answers"] = list(map(json.loads, columns["answers"]))
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    write("a.jsonl", "".join(json.dumps(row | row.pop("features", {})) + "\n" for row in rows))
    data = ("dataset=json", "dataset.train=a.jsonl", "dataset.max_overlap=1")
    prepared = {}
    for name, more in (("first", []), ("second", []), ("without", ["dataset.cache=false"])):
        words = (f"+recipe={case.recipe}", "smoke=true", *data, f"run.dir={name}", *more)
        code, out, err = llmft(case.command, *words)
        assert code == 0, err
        prepared[name] = [line for line in out.splitlines() if line.startswith("  prepared")]
    assert prepared == {
        "first": ["  prepared  now, and kept for later runs (seen for the first time)"],
        "second": ["  prepared  from the cache"],
        "without": [],
    }
    for name in ("second", "without"):
        assert told(here / name) == told(here / "first")
        for file in ("model/model.safetensors", "predictions/test.jsonl", "model/task.json"):
            assert (here / name / file).read_bytes() == (here / "first" / file).read_bytes()
        assert json.loads((here / name / "manifest.json").read_text())["data"].keys() == {"a.jsonl"}


CHANGES = {
    "the file": ([], True, "changed: a.csv"),
    "the length": (["task.max_length=7"], False, "changed: task.max_length"),
    "the shares": (["dataset.split.test=0.3"], False, "changed: dataset.split.test"),
    "the tokenizer's size": (["model.tokenizer.size=300"], False, "changed: model.tokenizer.size"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_data_prepares_them_anew(change: str, write: Write) -> None:
    more, other_file, why = CHANGES[change]
    write("a.csv", TABLE)
    prepare(compose("finetune", words("bert_textcls")))
    if other_file:
        write("a.csv", TABLE + "one more row,red,1\n")
    assert (
        prepare(compose("finetune", [*words("bert_textcls"), *more])).origin == f"now, and kept for later runs ({why})"
    )


def test_what_does_not_change_the_data_finds_them(write: Write) -> None:
    write("a.csv", TABLE)
    prepare(compose("finetune", words("bert_textcls")))
    others = ["optimizer.lr=0.5", "seed=4", "trainer.epochs=9", "model.config.hidden_size=64", "name=other"]
    assert prepare(compose("finetune", [*words("bert_textcls"), *others])).origin == "from the cache"


def test_how_long_texts_may_be_is_that_of_the_weights_at_hand(write: Write, here: Path) -> None:
    """Pretrained weights have 8 positions; random ones of the same folder get as many as task.max_length asks for."""
    write("a.csv", TABLE)
    BertConfig(max_position_embeddings=8).save_pretrained(here / "bert")
    train(TABLE.splitlines(), TokenizerConfig(size=90)).save_pretrained(here / "bert")
    run = ["+recipe=bert_textcls", "dataset=csv", "dataset.train=a.csv", "model.path=bert", "task.max_length=20"]
    lengths = []
    for more in ([], ["model.init=random"], ["model.config={max_position_embeddings: 6}"], []):
        found = prepare(compose("finetune", [*run, *more]))
        lengths.append(found.task.state.max_length)
    assert lengths == [8, 20, 6, 8]
    assert found.origin == "from the cache"


def test_other_code_prepares_anew(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.csv", TABLE)
    prepare(compose("finetune", words("bert_textcls")))
    monkeypatch.setattr(module, "_code", lambda task: "new")
    assert "changed: the code of llmft" in prepare(compose("finetune", words("bert_textcls"))).origin


def test_a_file_that_changes_meanwhile_is_not_kept_as_what_it_was(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.csv", TABLE)
    plain = module.load

    def load(*inputs: Any) -> Any:
        write("a.csv", TABLE + "one more row,red,1\n")
        return plain(*inputs)

    monkeypatch.setattr(module, "load", load)
    assert prepare(compose("finetune", words("bert_textcls"))).origin == ""


@pytest.mark.parametrize("when", ["found", "publish"])
def test_an_entry_that_goes_as_it_is_read_is_made_anew(
    when: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.csv", TABLE)
    config = compose("finetune", words("bert_textcls"))
    if when == "found":
        prepare(config)
    plain = getattr(Entry, when)

    def and_gone(self: Entry, *inputs: Any) -> bool:
        answer: bool = plain(self, *inputs)
        shutil.rmtree(self.folder, ignore_errors=True)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Entry, when, and_gone)
        prepared = prepare(config)
    assert len(prepared.splits["train"].features) == 48


def test_wrong_data_are_never_kept(llmft: Run, write: Write) -> None:
    write("a.csv", TABLE + ",red,1\n")
    for _ in range(2):
        code, _, err = llmft("finetune", *words("bert_textcls"))
        assert code == 2
        assert "has an empty text" in err


def test_a_cache_that_cannot_be_written_stops_nobody(write: Write, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.csv", TABLE)
    write("file", "")
    monkeypatch.setenv("LLMFT_CACHE", str(here / "file"))
    prepared = prepare(compose("finetune", words("bert_textcls")))
    assert prepared.origin == ""
    assert len(prepared.splits["train"].features) == 48


def test_data_stay_readable_when_their_entry_goes(write: Write) -> None:
    """Another process makes room while this one trains."""
    write("a.csv", TABLE)
    prepared = prepare(compose("finetune", words("bert_textcls")))
    assert prepared.entry is not None
    before = prepared.splits["train"].features[5]
    shutil.rmtree(prepared.entry.folder)
    assert prepared.splits["train"].features[5] == before
    assert prepared.splits["test"].rows[0]["text"].startswith("word")
