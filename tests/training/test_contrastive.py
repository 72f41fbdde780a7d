"""Few-shot: rows drawn of each label, the mean that a BERT's head reads, and the encoder that is tuned on pairs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from llmft.data.source import Table
from llmft.data.splitting import sample_shots
from llmft.models.initialization import LINEAR, SHARE, add_mean_pooling
from llmft.schema.problem import UserError
from llmft.training.contrastive import compare, last_layer, read_vectors

Run = Callable[..., tuple[int, str, str]]
SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}


def test_shots_are_drawn_of_each_label_and_keep_their_order() -> None:
    labels = ["a", "b", "b", "a", "b", "c"] * 20
    table = Table({"label": labels, "text": [str(n) for n in range(120)]}, [str(n) for n in range(120)])
    drawn = {seed: sample_shots(table, 3, seed) for seed in (0, 0, 1)}
    for found in drawn.values():
        assert sorted(found.columns["label"]) == list("aaabbbccc")
        assert found.ids == sorted(found.ids, key=int)
    assert drawn[0].ids != drawn[1].ids
    assert drawn[0].ids == sample_shots(table, 3, 0).ids
    # Five rows a label hold the three of the same seed.
    assert {*drawn[0].ids} < {*sample_shots(table, 5, 0).ids}
    assert len(sample_shots(table, 40, 0)) == 40 + 40 + 20


def test_the_head_of_a_bert_reads_the_mean_of_its_tokens() -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SIZES)).eval()
    inputs = {"input_ids": torch.tensor([[2, 5, 9, 3], [2, 7, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}  # fmt: skip
    with torch.no_grad():
        hidden = model.bert(**inputs).last_hidden_state
        add_mean_pooling(model)
        vectors = read_vectors(model, last_layer(model, 2), inputs)
    assert model.config.num_hidden_layers == 3
    mask = inputs["attention_mask"][..., None]
    means = (hidden * mask).sum(1) / mask.sum(1)
    expected = torch.tanh(LINEAR * functional.layer_norm(hidden[:, 0] + SHARE * means, (16,), eps=1e-12))
    assert torch.allclose(vectors, expected, atol=1e-5)
    assert functional.cosine_similarity(vectors, means - means.mean(1, keepdim=True)).min() > 0.98


def test_only_a_bert_has_such_a_pooler() -> None:
    sizes = {"vocab_size": 30, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 8}
    with pytest.raises(UserError, match="is for BERT with a pooler"):
        add_mean_pooling(DistilBertForSequenceClassification(DistilBertConfig(**sizes)))


@pytest.mark.parametrize(
    ("vectors", "labels", "expected"),
    [
        ([[1, 0], [2, 0], [0, 1]], [0, 0, 1], 0.0),  # alike have a cosine of 1, others of 0
        ([[1, 0], [0, 1], [1, 0]], [0, 0, 1], ((0 - 1) ** 2 + (1**2 + 0**2) / 2) / 2),  # each kind of pairs is a half
        ([[1, 0], [1, 0]], [0, 1], 1.0),  # no pair of one label
    ],
)
def test_the_loss_of_pairs(vectors: list[list[float]], labels: list[int], expected: float) -> None:
    found = compare(torch.tensor(vectors, dtype=torch.float), torch.tensor(labels), "cosine")
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_an_encoder_is_tuned_and_then_frozen(llmft: Run, here: Path) -> None:
    tiny = ("finetune", "+recipe=fewshot_textcls", "smoke=true", "trainer.max_steps=2", "model.freeze=encoder")
    for name, epochs in (("tuned", 3), ("again", 3), ("plain", 0)):
        code, out, err = llmft(*tiny, f"task.contrastive.epochs={epochs}", "dataset.shots=2", f"run.dir={name}")
        assert code == 0, err
        assert ("3 steps on pairs of rows" in out) == (epochs == 3)
        assert "rows, 2 of each label" in out
    weights = {name: load_file(here / name / "model/model.safetensors") for name in ("tuned", "again", "plain")}
    inner = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(weights["tuned"][inner], weights["again"][inner])
    assert not torch.allclose(weights["tuned"][inner], weights["plain"][inner], atol=1e-5)
    assert json.loads((here / "tuned/metrics.json").read_text())["train"]["contrastive_steps"] == 3
    # What is written is a plain BERT.
    model = BertForSequenceClassification.from_pretrained(here / "tuned/model")
    assert {name for name, _ in model.named_parameters()} == weights["tuned"].keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("+recipe=bert_sts", "task.contrastive.epochs=1"), "compares rows of one label each"),
        (("+recipe=bert_lora", "task.contrastive.epochs=1"), "tunes all weights of the encoder"),
        (("+recipe=bert_textcls", "task.contrastive.epochs=1", "hardware.processes=2"), "works in one process"),
        (("+recipe=bert_textcls", "dataset.streaming=true", "dataset.shots=8"), "draws rows in memory"),
        (("+recipe=bert_sts", "dataset.shots=8"), "draws rows of each label"),
        (("+recipe=bert_ner", "dataset.shots=8"), "draws rows of each label"),
    ],
)
def test_what_is_refused(llmft: Run, words: tuple[str, ...], message: str) -> None:
    code, _, err = llmft("finetune", *words)
    assert code == 2
    assert message in err
