"""A frozen encoder's outputs, looked up, are those that it would compute."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from llmft.commands.session import Session
from llmft.config.load import load as compose
from llmft.training.evaluation import batches, float32
from llmft.training.frozen import INDEX, FrozenEncoder, NotOneVector, cached_encoder
from llmft.training.hardware import Hardware

Run = Callable[..., tuple[int, str, str]]
SMOKE = ["+recipe=bert_textcls", "smoke=true", "model.freeze=encoder"]
CPU = Hardware("cpu", "fp32", "")
ARCHITECTURES = (
    "bert",
    "distilbert",
    "roberta",
    "xlm-roberta",
    "albert",
    "electra",
    "deberta-v2",
    "mpnet",
    "gpt2",
    "llama",
)


def built(architecture: str, *words: str) -> Session:
    """Prepared data and a tiny model with a frozen encoder."""
    session = Session(compose("finetune", [*SMOKE, f"model.architecture={architecture}", *words]))
    session.hardware = CPU
    session.prepare()
    session.build()
    return session


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_looked_up_and_computed_logits_are_equal(architecture: str) -> None:
    """Features in batches of other sizes and companions than those that they were computed in."""
    session = built(architecture)
    task, model = session.task, session.model
    plain = copy.deepcopy(model)
    assert {parameter.requires_grad for parameter in model.base_model.parameters()} == {False}
    calls = 0
    forward = model.base_model.forward

    def counted(*inputs: Any, **keys: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(*inputs, **keys)

    model.base_model.forward = counted
    with cached_encoder(session, None) as ready:
        computed = calls
        for name in ("train", "validation"):
            before, after = session.splits[name].features, ready[name].features
            numbers = [3, 0, 7, 11, 5]
            looked = task.objective.collate(after.__getitems__(numbers))
            assert looked[INDEX].tolist() == [number + (32 if name == "validation" else 0) for number in numbers]
            batch = task.objective.collate(before.__getitems__(numbers))
            with float32(model), float32(plain):
                one, other = model(**looked), plain(**batch)
            assert torch.allclose(one.logits, other.logits, atol=1e-6)
            assert torch.allclose(one.loss, other.loss, atol=1e-6)
        assert calls == computed > 0
    model.base_model.forward = forward
    batch = task.objective.collate(session.splits["test"].features.__getitems__([1, 2]))
    with float32(model), float32(plain):
        assert torch.equal(model(**batch).logits, plain(**batch).logits), "released"


def test_the_head_learns_what_it_would_learn_of_a_running_encoder(llmft: Run, here: Path, monkeypatch: Any) -> None:
    still = [
        "model.config.hidden_dropout_prob=0",
        "model.config.attention_probs_dropout_prob=0",
        "hardware.precision=fp32",
    ]
    assert llmft("finetune", *SMOKE, *still, "run.dir=kept")[0] == 0

    def refuse(self: FrozenEncoder, batch: Any) -> Any:
        raise NotOneVector

    monkeypatch.setattr(FrozenEncoder, "read", refuse)
    code, out, _ = llmft("finetune", *SMOKE, *still, "run.dir=running")
    assert code == 0
    assert "the frozen encoder runs in every epoch: its head reads more than one vector of a row" in out
    kept, running = (losses(here / name) for name in ("kept", "running"))
    assert kept == pytest.approx(running, abs=1e-5)
    one, other = (load_file(here / name / "model/model.safetensors") for name in ("kept", "running"))
    assert one.keys() == other.keys()
    assert {key for key in one if not torch.equal(one[key], other[key])} <= {"classifier.weight", "classifier.bias"}


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "events.jsonl").read_text().splitlines()]


def test_nothing_is_dropped_out_of_a_frozen_encoder() -> None:
    session = built("bert", "model.config.hidden_dropout_prob=0.5")
    model = session.model
    encoder = FrozenEncoder(model)
    batch = session.task.objective.collate(session.splits["train"].features.__getitems__([0, 1]))
    model.train()
    outputs = [model.base_model(batch["input_ids"], attention_mask=batch["attention_mask"])[0] for _ in range(2)]
    assert torch.equal(*outputs)
    encoder.release()


def test_a_head_that_reads_every_token_is_told() -> None:
    session = built("distilbert")
    model = session.model
    head = model.pre_classifier.forward
    hidden: list[torch.Tensor] = []
    encoder = FrozenEncoder(model)
    inner = encoder._forward

    def forward(*inputs: Any, **keys: Any) -> Any:
        output = inner(*inputs, **keys)
        hidden.append(output[0])
        return output

    model.base_model.forward = forward
    model.pre_classifier.forward = lambda first: head(first + hidden[-1].mean(dim=1))
    with float32(model), torch.inference_mode(False), pytest.raises(NotOneVector):
        for _, batch in batches(session.task, session.splits["train"].features, 8, model):
            encoder.read(batch)


def test_a_second_run_takes_the_outputs_from_the_cache(llmft: Run, here: Path, write: Any, monkeypatch: Any) -> None:
    write("a.csv", "text,label\n" + "".join(f"word{i} of {i * 7},{i % 2}\n" for i in range(60)))
    words = [*SMOKE, "dataset=csv", "dataset.train=a.csv"]
    assert llmft("finetune", *words, "run.dir=a")[0] == 0
    runs = 0
    plain = FrozenEncoder.read

    def read(self: FrozenEncoder, batch: Any) -> Any:
        nonlocal runs
        runs += len(batch["input_ids"])
        return plain(self, batch)

    monkeypatch.setattr(FrozenEncoder, "read", read)
    assert llmft("finetune", *words, "run.dir=b")[0] == 0
    assert runs == 1, "to see what the head reads"
    assert losses(here / "a") == losses(here / "b")
    assert llmft("finetune", *words, "run.dir=c", "seed=5")[0] == 0
    assert runs > 40, "other weights"
    runs = 0
    assert llmft("finetune", *words, "run.dir=d", "model.config.num_attention_heads=4")[0] == 0
    assert runs > 40, "the same weights, used otherwise"


def test_a_checkpoint_leaves_frozen_weights_out(llmft: Run, here: Path) -> None:
    words = ("trainer.max_steps=2", "trainer.keep_finished=true", "run.dir=run")
    assert llmft("finetune", *SMOKE, *words)[0] == 0
    (file, *_) = sorted((here / "run/checkpoints").glob("*/model.safetensors"))
    with safe_open(file, "pt") as opened:
        assert {name.split(".")[0] for name in opened.keys()} == {"classifier"}  # noqa: SIM118
    assert file.stat().st_size < (here / "run/model/model.safetensors").stat().st_size / 10


def test_a_table_has_no_encoder_to_freeze(llmft: Run) -> None:
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", "smoke=true", "model.freeze=encoder")
    assert code == 2
    assert "must not be encoder for MLPForClassification, which has no base model apart from its head" in err
