"""`llmft pretrain`: from raw text to a model, on with it, and from there to a task."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]
SIZES = ("model.config={n_layer:1,n_head:2,n_embd:16,n_positions:16}", "model.tokenizer.kind=characters")
TEXT = ("dataset=text", "dataset.split.test=0", "dataset.split.validation=0", "task.block=16")
SHORT = ("trainer.max_steps=2", "trainer.batch_size=2")
STORY = "The fox went out, 狐狸出去了, and came back. " * 20


def test_a_model_is_trained_goes_on_and_is_taken_up(llmft: Run, write: Write, here: Path) -> None:
    write("story.txt", STORY)
    write("more.txt", STORY.title() + STORY)
    write("held.txt", "The fox came back.\n")
    data = [*TEXT, "dataset.train=story.txt", "dataset.test=held.txt"]
    code, out, err = llmft("pretrain", "+recipe=gpt_clm", *data, *SIZES, *SHORT, "run.dir=first")
    assert code == 0, err
    assert "train: 801 tokens, 50 blocks of 16" in out
    assert (
        "next       llmft finetune +recipe=llm_instruct model.path=first dataset=json dataset.train=YOUR.jsonl" in out
    )
    config = json.loads((here / "first/model/config.json").read_text())
    assert (config["n_positions"], config["vocab_size"]) == (16, 26)

    # On with it: the weights, the sizes and the tokenizer are those of the run, whatever the recipe says.
    onward = ["+recipe=gpt_clm", "model.path=first", *TEXT, "dataset.train=more.txt", "dataset.test=held.txt"]
    code, out, err = llmft("pretrain", *onward, *SHORT, "optimizer.lr=1e-12", "run.dir=second")
    assert code == 0, err
    assert "first (gpt2," in out and ", pretrained)" in out
    first, second = (json.loads((here / run / "metrics.json").read_text())["test"] for run in ("first", "second"))
    assert second["loss"] == pytest.approx(first["loss"], abs=1e-4)
    assert (here / "second/model/tokenizer.json").read_bytes() == (here / "first/model/tokenizer.json").read_bytes()

    # And for a task.
    write("rows.csv", "text,label\n" + "".join(f"the fox {i},{'ab'[i % 2]}\n" for i in range(40)))
    words = ["+recipe=bert_textcls", "model.path=second", "dataset=csv", "dataset.train=rows.csv", *SHORT]
    code, out, err = llmft("finetune", *words, "run.dir=third")
    assert code == 0, err
    assert "second (gpt2," in out
    assert json.loads((here / "third/model/config.json").read_text())["n_embd"] == 16

    code, out, err = llmft("predict", "first", "predict.text=The fox", "generation.max_new_tokens=40")
    assert code == 0, err
    assert isinstance(json.loads(out)["answer"], str)


MISTAKES = {
    "a task with labels": (
        ["task=text_classification"],
        "llmft pretrain is for causal_lm, masked_lm, span_corruption.",
    ),
    "a recipe of finetune": (["+recipe=tabular_mlp"], "this recipe is for llmft finetune"),
    "too little text": (
        ["+recipe=gpt_clm", *TEXT, "dataset.train=short.txt", *SIZES],
        "dataset.train  must have 16 tokens for a block of task.block=16, got 7. Give more text, or a smaller task.block.",
    ),
    "a block longer than the positions": (
        ["task=causal_lm", "model=minilm", *TEXT, "dataset.train=long.txt", "task.block=600"],
        "task.block  needs max_position_embeddings=600, and the model has 512",
    ),
    "a model without the head": (
        ["task=span_corruption", "model=gpt", "model.tokenizer.kind=characters", *TEXT, "dataset.train=story.txt"],
        "model.architecture  must be an architecture with AutoModelForSeq2SeqLM in transformers, got gpt2",
    ),
    "no mask token": (
        ["task=masked_lm", "model.tokenizer=tokenizer", *TEXT, "dataset.train=story.txt"],
        "model.tokenizer  the tokenizer has no mask token, which a masked language model reads",
    ),
    "streaming": (
        ["dataset.streaming=true"],
        "error: 1 problem in this configuration\n  dataset.streaming  raw text is never held in memory anyway",
    ),
    "folds": (
        ["dataset.folds=3"],
        "dataset.folds  needs all rows in memory, and raw text is not (command line). Write dataset.split.seed=1 for",
    ),
    "a frozen encoder": (["model.freeze=encoder"], "model.freeze  each epoch cuts the text at other places"),
    "a prefix": (["task=causal_lm", "adapter=prefix"], "adapter=prefix does not work with causal_lm"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said(mistake: str, llmft: Run, write: Write, here: Path) -> None:
    from llmft.models.tokenizers import train
    from llmft.schema.model import GPT, TokenizerConfig

    write("story.txt", STORY)
    write("short.txt", "the en")
    write("long.txt", STORY * 5)
    train([STORY], TokenizerConfig(kind="characters"), GPT).save_pretrained(here / "tokenizer")
    words, said = MISTAKES[mistake]
    code, _, err = llmft("pretrain", *words, "run.dir=run")
    assert code == 2
    assert said in err
    assert not (here / "run").exists()
