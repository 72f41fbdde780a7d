"""Instruction and chat tuning from the command line: what is trained, what is written, and what is wrong with rows."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from datasets import Dataset

from llmft import tasks
from llmft.config.load import load as compose
from llmft.schema.problem import UserError
from llmft.schema.tasks import IGNORED
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]
TINY = ("smoke=true", "trainer.max_steps=2")


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def talk(*texts: str) -> dict[str, Any]:
    """A chat that a user begins."""
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]}


def test_what_training_writes_is_what_eval_and_predict_write(llmft: Run, write: Write, here: Path) -> None:
    """A tiny model learns the answers by heart, and says them by every command, alone or in a batch."""
    words = ("trainer.max_steps=120", "trainer.batch_size=16", "dataset.max_rows=256", "optimizer.lr=0.003")
    code, out, err = llmft("finetune", "+recipe=llm_chat", *TINY[:1], *words, "run.dir=run")
    assert code == 0, err
    metrics = json.loads((here / "run/metrics.json").read_text())
    assert metrics["test"]["exact_match"] >= 0.9 > 1 / 6
    assert metrics["test"]["perplexity"] == pytest.approx(math.exp(metrics["test"]["loss"]))
    assert llmft("eval", "run", "run.dir=again", "trainer.eval_batch_size=3")[0] == 0
    scored = [json.loads(line) for line in (here / "run/predictions/test.jsonl").read_text().splitlines()]
    again = [json.loads(line) for line in (here / "again/predictions/test.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in again] == [row["answer"] for row in scored]
    assert sum(row["answer"] == row["label"] for row in scored) / 16 == metrics["test"]["exact_match"]

    rows = tasks.build(compose("finetune", ["+recipe=llm_chat", "smoke=true"]).task).synthetic_rows(16, seed=2)[
        "messages"
    ]
    write("rows.jsonl", "".join(f'{{"messages": {cell}}}\n' for cell in rows))
    code, out, err = llmft("predict", "run", "predict.input=rows.jsonl")
    assert code == 0, err
    assert [json.loads(line)["answer"] for line in out.splitlines()] == [row["answer"] for row in scored]
    # Without the last answer, which is not looked at, it is the same question.
    write("asked.jsonl", "".join(f'{{"messages": {json.dumps(json.loads(cell)[:-1])}}}\n' for cell in rows))
    assert llmft("predict", "run", "predict.input=asked.jsonl")[1] == out.replace("rows.jsonl", "asked.jsonl")

    code, out, err = llmft("predict", "run", "predict.text=say lumo")
    assert (code, json.loads(out)) == (0, {"id": "text", "answer": "dax"}), err
    code, out, _ = llmft("predict", "run", "predict.row={messages: [{role: robot, content: hi}]}")
    assert code == 1
    write("two.jsonl", lines([talk("say vita"), {"messages": "say vita"}, {"prompt": "say vita"}]))
    code, out, _ = llmft("predict", "run", "predict.input=two.jsonl")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer.get("answer") for answer in answers] == ["wug", None, "wug"]
    assert answers[1]["error"] == 'messages is "say vita", no list of messages'


def test_without_writing_each_row_has_its_loss(llmft: Run, here: Path) -> None:
    assert llmft("finetune", "+recipe=llm_instruct", *TINY, "task.generate=false", "run.dir=run")[0] == 0
    metrics = json.loads((here / "run/metrics.json").read_text())["test"]
    assert set(metrics) == {"loss", "perplexity"}
    rows = [json.loads(line) for line in (here / "run/predictions/test.jsonl").read_text().splitlines()]
    assert all(row["answer"] is None and row["label"] for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    assert metrics["loss"] == pytest.approx(sum(row["loss"] * row["tokens"] for row in rows) / tokens, abs=1e-5)
    worst = max(rows, key=lambda row: row["loss"])
    assert f"loss of the right answer {worst['loss']:.3f}" in (here / "run/report.html").read_text()


@pytest.mark.parametrize("words", [("adapter=lora",), ("adapter=ia3",), ("model.freeze=[embeddings]",)])
def test_what_trains_may_be_little(words: tuple[str, ...], llmft: Run, here: Path) -> None:
    code, out, err = llmft("finetune", "+recipe=llm_chat", *TINY, *words, "run.dir=run")
    assert code == 0, err
    found = json.loads((here / "run/metrics.json").read_text())
    if words[0].startswith("adapter"):
        assert "with the head" not in out
        assert found["train"]["merged_difference"] < 1e-4
    assert llmft("eval", "run", "run.dir=again")[0] == 0
    assert json.loads((here / "again/metrics.json").read_text())["test"] == found["test"]


def test_rows_can_be_streamed(llmft: Run, write: Write, here: Path) -> None:
    rows = [talk(f"say {word} {i}", word) for i in range(20) for word in ("a", "b")]
    for split, part in (("train", rows), ("validation", rows[:3]), ("test", rows[3:6])):
        write(f"{split}.jsonl", lines(part))
    files = [f"dataset.{split}={split}.jsonl" for split in ("train", "validation", "test")]
    words = ("dataset=json", *files, "dataset.max_overlap=1", "dataset.streaming=true", "dataset.max_rows=null")
    code, out, err = llmft("finetune", "+recipe=llm_chat", *TINY, *words)
    assert code == 0, err
    assert "train 40 (streamed)" in out


@pytest.mark.parametrize(
    ("rows", "words", "problem"),
    [
        ([talk("a", "b"), talk("a")], (), "rows.jsonl:2  has no message of the assistant"),
        ([talk("a", "b"), talk("a", " ")], (), "rows.jsonl:2        has a message without a text (train)"),
        ([talk("a", "b"), {"messages": [{"role": "robot", "content": "a"}]}], (), "rows.jsonl:2  message 1 is of"),
        ([talk("a", "b"), {"messages": {"a": 1}}], (), 'rows.jsonl:2  messages is {"a": 1}, no list of messages'),
        ([talk("a", "b"), {"messages": talk("a", "b")["messages"][1:]}], (), "rows.jsonl:2  messages begins with an"),
        ([talk("a", "b <|im_end|>")], (), "rows.jsonl:1  message 2 holds <|im_end|>"),
        (
            [talk("a", "b")],
            ("task.template=null",),
            "model.tokenizer  tiny-llama is not a chat model: its tokenizer has",
        ),
        ([{"prompt": "a"}], (), "dataset.columns.response  train has prompt and no column 'response'"),
        ([{"prompt": "a", "response": "b"} | talk("a", "b")], (), "dataset.columns  train has messages and prompt"),
        (
            [{"prompt": "a", "response": "b"}, talk("a", "b")],
            (),
            "rows.jsonl:1  has no messages, which other rows have (train)\n"
            "  rows.jsonl:2  has no prompt, which other rows have (train)\n",
        ),
        ([{"question": "a", "answer": "b"}], (), "dataset.columns  must give a column to one of messages"),
        (
            [talk("a", "b")],
            ("dataset.clean.normalize=NFC",),
            "dataset.clean.normalize  must be unset: it cleans texts, and these rows have",
        ),
        (
            [{"prompt": "a", "response": "b", "tools": [{"name": "f"}]}],
            (),
            "rows.jsonl:1  has 'tools', which the chat template does not write; write dataset.ignore=[tools]",
        ),
        ([{"prompt": "a", "response": ""}], (), "rows.jsonl:1  has an empty response (train)"),
        ([{"prompt": "", "response": "b"}], (), "rows.jsonl:1  has an empty text (train)"),
    ],
)
def test_what_is_wrong_with_rows_is_said_by_file_and_line(
    rows: list[Any], words: tuple[str, ...], problem: str, llmft: Run, write: Write
) -> None:
    write("rows.jsonl", lines(rows))
    none = ("dataset.split.validation=0", "dataset.split.test=0")
    code, _, err = llmft(
        "finetune", "+recipe=llm_chat", *TINY, "dataset=json", "dataset.train=rows.jsonl", *none, *words
    )
    assert code == 2
    assert problem in err


def test_a_batch_can_be_made_of_the_same_features_again() -> None:
    config = compose("finetune", ["+recipe=llm_instruct", "smoke=true"])
    task = tasks.build(config.task)
    rows = Dataset.from_dict({"id": ["1", "2"], "prompt": ["你好 😀", "é"], "response": ["再见", "b"]})
    task = task.fit(rows, config.model)
    features = encode(task, rows).__getitems__([0, 1])
    one, two = (task.objective.collate(features) for _ in range(2))
    assert one.keys() == two.keys() == {"input_ids", "labels", "attention_mask", "prompt_ids", "prompt_mask"}


def test_no_loss_is_too_high_for_a_perplexity() -> None:
    task = tasks.build(compose("finetune", ["+recipe=llm_chat"]).task)
    assert task.objective.metrics_from_loss(1.0) == {"loss": 1.0, "perplexity": pytest.approx(2.718281828)}
    assert task.objective.metrics_from_loss(1000.0)["perplexity"] > 1e300


def test_a_set_in_which_nothing_is_trained_is_refused() -> None:
    task = tasks.build(compose("finetune", ["+recipe=llm_chat"]).task)
    assert task.notes_on(None, "train", pyarrow.table({"labels": [[IGNORED, 5], [IGNORED, 6, 7]]})) == [
        "train: 3 of 5 tokens are trained, 60.0%"
    ]
    with pytest.raises(UserError, match="leaves nothing to train on: none of the 3 tokens of train"):
        task.notes_on(None, "train", pyarrow.table({"labels": [[IGNORED], [IGNORED, IGNORED]]}))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ("adapter=prefix",),
            "adapter.name  prefix only works for tasks that classify texts, got task=instruction",
        ),
        (("task.answer_pattern=(",), "must be a regular expression"),
        (("task.answer_pattern=####",), "must have a group"),
        (("trainer.metric_for_best=accuracy",), "accuracy is not a metric of instruction"),
    ],
)
def test_what_does_not_go_with_it_is_refused(words: tuple[str, ...], problem: str, llmft: Run) -> None:
    code, _, err = llmft("finetune", "+recipe=llm_chat", *words)
    assert code == 2
    assert problem in err
