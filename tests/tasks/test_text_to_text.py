"""What goes into an encoder-decoder, what comes out, and what its scores are of."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from datasets import Dataset

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.models.build import build
from llmft.schema.problem import UserError
from llmft.schema.tasks import IGNORED
from llmft.training.evaluation import Split, evaluate, loss_of
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
ROWS = {
    "source": ["Guten Tag", "Wie geht es dir heute, mein Freund?", "你好，世界！"],
    "target": [["Good day", "Hello"], ["How are you today, my friend?"], ["Hello, world!"]],
}


def fitted(*words: str, rows: dict[str, list[Any]] = ROWS) -> tuple[Any, Any]:
    """The task, fitted, and a tiny model."""
    config = compose("finetune", ["+recipe=t5_translation", "smoke=true", *words])
    task = tasks.build(config.task)
    task = task.fit(Dataset.from_dict(rows), config.model)
    transformers.set_seed(0)
    return task, build(config.model, task.head, task.model_kwargs())


def test_both_sides_end_and_the_first_target_is_learnt() -> None:
    task, model = fitted("task.prefix='translate: '")
    features = task.encode(ROWS)
    end = task.state.tokenizer.eos_token_id
    assert all(ids[-1] == end and ids.count(end) == 1 for key in ("input_ids", "labels") for ids in features[key])
    read = task.state.tokenizer.batch_decode(features["input_ids"], skip_special_tokens=True)
    said = task.state.tokenizer.batch_decode(features["labels"], skip_special_tokens=True)
    assert read == [f"translate: {text}" for text in ROWS["source"]]
    assert said == [texts[0] for texts in ROWS["target"]]
    config = model.config
    assert (config.decoder_start_token_id, config.pad_token_id, config.eos_token_id) == (
        task.state.tokenizer.pad_token_id,
        task.state.tokenizer.pad_token_id,
        end,
    )
    batch = task.objective.collate([{key: features[key][i] for key in ("input_ids", "labels")} for i in range(3)])
    assert batch["input_ids"].shape == batch["attention_mask"].shape != batch["labels"].shape
    assert (
        task.objective.loss_weight(batch)
        == sum(map(len, features["labels"]))
        == int((batch["labels"] != IGNORED).sum())
    )


def test_what_looks_like_a_special_token_is_text() -> None:
    rows = {"source": ["a </s> 中 <pad> b"], "target": [["<pad> 👩‍👩‍👧 </s> c"]]}
    task, _ = fitted(rows={key: ROWS[key] + rows[key] for key in ROWS})
    features = task.encode(rows)
    special = {task.state.tokenizer.pad_token_id, task.state.tokenizer.eos_token_id}
    assert not special & {*features["input_ids"][0][:-1], *features["labels"][0][:-1]}
    (answer,) = task.decode([[task.state.tokenizer.pad_token_id, *features["labels"][0]]], [0])
    assert answer["answer"] == rows["target"][0][0]


def test_the_tokenizer_that_is_kept_ends_texts_by_itself(tmp_path: Path) -> None:
    """Whoever loads the model with transformers alone gives it what it was trained on."""
    task, _ = fitted()
    task.save(tmp_path)
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path)(ROWS["source"])["input_ids"]
    assert ids == task.encode(ROWS)["input_ids"]


def test_what_is_too_long_is_cut_and_still_ends() -> None:
    task, _ = fitted("task.max_length=6", "task.max_output_length=5")
    features = task.encode(ROWS)
    assert features["cut"][1] and not features["cut"][0]
    assert max(map(len, features["input_ids"])) == 6
    assert max(map(len, features["labels"])) == 5
    assert {ids[-1] for key in ("input_ids", "labels") for ids in features[key]} == {task.state.tokenizer.eos_token_id}


def test_smoothing_is_of_training_alone() -> None:
    task, model = fitted("task.label_smoothing=0.2")
    features = encode(task, Dataset.from_dict(ROWS))
    batch = task.objective.collate(features.__getitems__([0, 1, 2]))
    plain = model.eval()(**batch).loss.item()
    assert task.objective.loss(model, batch).item() == pytest.approx(plain, abs=1e-6)
    logits, labels = model(**batch).logits, batch["labels"]
    shares = logits.log_softmax(dim=-1)[labels != IGNORED]
    smoothed = 0.8 * plain - 0.2 * shares.mean().item()
    assert task.objective.loss(model.train(), batch).item() == pytest.approx(smoothed, abs=1e-5)


def test_the_loss_alone_is_that_of_the_whole_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    task, model = fitted()
    rows = Dataset.from_dict(ROWS)
    split = Split(rows, encode(task, rows))
    whole, prediction = evaluate(task, model, split, 2)
    model.train()
    monkeypatch.setattr(type(model), "generate", None)
    alone = loss_of(task, model, split, 2)
    assert alone == {key: whole[key] for key in ("loss", "perplexity")}
    assert alone["perplexity"] == math.exp(alone["loss"])
    assert model.training
    tokens = [len(ids) for ids in split.features.table["labels"].to_pylist()]
    each = [loss_of(task, model, Split(rows.select([i]), encode(task, rows.select([i]))), 1) for i in range(3)]
    mean = sum(count * one["loss"] for count, one in zip(tokens, each, strict=True)) / sum(tokens)
    assert alone["loss"] == pytest.approx(mean, abs=1e-5), "a mean over tokens, not over rows"
    assert len(prediction.answers) == 3


def test_texts_are_written_in_training_only_where_they_pick_the_best(llmft: Run, here: Path) -> None:
    for name, words in (("loss", ()), ("bleu", ("trainer.metric_for_best=bleu",))):
        assert llmft("finetune", "+recipe=t5_translation", "smoke=true", *words, f"run.dir={name}")[0] == 0
        events = [json.loads(line) for line in (here / name / "events.jsonl").read_text().splitlines()]
        scores = [event for event in events if event["split"] == "validation"]
        assert scores
        assert all(("bleu" in event) is (name == "bleu") and "perplexity" in event for event in scores)
        assert "bleu_signature" in json.loads((here / name / "metrics.json").read_text())["test"]


def test_sampled_answers_are_those_of_the_seed(llmft: Run, here: Path, write: Write) -> None:
    """eval and predict draw what training drew, in batches of any size, and other texts with another seed."""
    words = ("smoke=true", "generation=sample", "seed=5", "run.dir=run")
    assert llmft("finetune", "+recipe=t5_translation", *words)[0] == 0
    kept = (here / "run/predictions/test.jsonl").read_text()
    assert llmft("eval", "run", "trainer.eval_batch_size=3", "run.dir=again")[0] == 0
    assert (here / "again/predictions/test.jsonl").read_text() == kept
    rows = [json.loads(line) for line in kept.splitlines()]
    write("rows.txt", "".join(f"{row['input']}\n" for row in rows))
    _, out, err = llmft("predict", "run", "predict.input=rows.txt", "trainer.eval_batch_size=1")
    assert [json.loads(line)["answer"] for line in out.splitlines()] == [row["answer"] for row in rows], err
    _, other, _ = llmft("predict", "run", "predict.input=rows.txt", "seed=6")
    assert other != out
    _, greedy, _ = llmft("predict", "run", "predict.input=rows.txt", "generation=greedy")
    assert greedy not in (out, other)
    _, alone, _ = llmft("predict", "run", f"predict.text={rows[0]['input']}")
    assert json.loads(alone)["answer"] == rows[0]["answer"]


def test_a_decoder_alone_is_refused(llmft: Run, here: Path) -> None:
    code, _, err = llmft("finetune", "+recipe=t5_translation", "smoke=true", "model.architecture=gpt2")
    assert code == 2
    assert "model.architecture  must be an architecture with AutoModelForSeq2SeqLM in transformers, got gpt2" in err
    assert "Choose an encoder-decoder, such as t5" in err


def test_a_saved_decoder_alone_is_refused(llmft: Run, here: Path) -> None:
    sizes = {"vocab_size": 300, "n_embd": 8, "n_layer": 1, "n_head": 1}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(here / "gpt")
    task, _ = fitted()
    task.state.tokenizer.save_pretrained(here / "gpt")
    words = ("dataset.max_rows=64", "dataset.split.validation=0", "dataset.split.test=0")
    code, _, err = llmft(
        "finetune", "+recipe=t5_translation", "model.path=gpt", "model.init=pretrained", "smoke=true", *words
    )
    assert code == 2
    assert "model.path  must be an architecture with AutoModelForSeq2SeqLM in transformers, got gpt2" in err


def test_what_a_tokenizer_cannot_write_is_said(here: Path) -> None:
    letters = {"source": ["abc"] * 9, "target": [["cba"]] * 9}
    task, _ = fitted("model.tokenizer.kind=wordpiece", rows=letters)
    assert task.state.remarks == fitted()[0].state.remarks == []
    changed = fitted("model.tokenizer.kind=wordpiece")[0].state.remarks
    assert [remark.partition(", in case")[0] for remark in changed] == [
        "train: 100% of target come back from the tokenizer otherwise"
    ]
    lines = {"source": ["a b c"] * 9, "target": [["a\nb\nc"]] * 9}
    for kind, share in (("wordpiece", ["train: 100% of target"]), ("bpe", [])):
        found = fitted(f"model.tokenizer.kind={kind}", rows=lines)[0].state.remarks
        assert [remark.partition(" come back")[0] for remark in found] == share  # line breaks are letters, too
    task.state.tokenizer.save_pretrained(here / "letters")
    chinese = {"source": ["abc"] * 9, "target": [["你好世界"]] * 9}
    with pytest.raises(UserError, match="100% of the words of train are unknown to it"):
        fitted("model.tokenizer=letters", rows=chinese)


def test_scores_of_several_references_and_of_chinese() -> None:
    rows = {"source": ["a", "b"], "target": [["你好，世界。", "世界好。"], ["再见。"]]}
    task, _ = fitted(rows=rows)
    assert task.state.bleu_tokenize == "zh"
    assert any("sacreBLEU's tokenizer zh" in note for note in task.state.notes)
    data = Dataset.from_dict(rows)
    found = task.score([{"answer": "世界好。"}, {"answer": "再见。"}], data)
    assert found["chrf"] == pytest.approx(100)
    assert [task.reference(row) for row in data] == [rows["target"][0], "再见。"]
    assert task.row_score({"answer": "世界好。"}, rows["target"][0]).error == 0
    assert 0 < task.row_score({"answer": "世界坏。"}, rows["target"][0]).error < 1
    assert task.format_answer(rows["target"][0]) == "你好，世界。 ⏐ 世界好。"
    assert fitted("task.bleu_tokenize=char", rows=rows)[0].state.bleu_tokenize == "char"


@pytest.mark.parametrize(("name", "split"), [("scitldr", "train"), ("scitldr", "test")])
def test_real_summaries_are_read(name: str, split: str, shared: Callable[[str], Path]) -> None:
    """Those of test have several references each."""
    columns = ("dataset.columns.text=source", "dataset.columns.summary=targets")
    file = shared(name) / f"{split}.jsonl"
    config = compose("finetune", ["+recipe=t5_summary", "dataset=json", f"dataset.train={file}", *columns])
    rows = load(config.dataset, tasks.build(config.task))["train"]
    most = max(map(len, rows["summary"]))
    assert most == 1 if split == "train" else most > 1


def test_real_translations_are_read(shared: Callable[[str], Path]) -> None:
    """20,000 lines; equal English sentences stay in one split, whatever their translations."""
    file = shared("tatoeba_eng_cmn") / "cmn.txt"
    words = ("dataset=csv", f"dataset.train={file}", "dataset.header=[source,target,by]")
    config = compose("finetune", ["+recipe=t5_translation", *words])
    data = load(config.dataset, tasks.build(config.task))
    assert sum(map(len, data.splits.values())) == 20000
    sources = {name: set(rows["source"]) for name, rows in data.splits.items()}
    assert not sources["train"] & sources["test"]
