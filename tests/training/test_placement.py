"""Where weights lie: what the libraries are told, and what a person is told. tests/faults/test_strategies.py runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.commands.session import Session
from llmft.config.load import load
from llmft.models.build import build
from llmft.schema.model import ModelConfig
from llmft.training import loop
from llmft.training.hardware import Hardware

Run = Callable[..., tuple[int, str, str]]
SMOKE = ("+recipe=bert_textcls", "smoke=true")
NEEDED = {"num_labels": 2, "vocab_size": 60}
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeed_is_told_the_stage_and_the_rest_by_its_own_names(stage: int, monkeypatch: Any) -> None:
    told: dict[str, Any] = {}

    class Arguments:
        n_gpu = 0

        def __init__(self, **keys: Any) -> None:
            told.update(keys)

    monkeypatch.setattr(loop, "TrainingArguments", Arguments)
    words = ("hardware.strategy=deepspeed", "hardware.processes=2", f"hardware.zero_stage={stage}")
    config = load("finetune", [*SMOKE, *words])
    loop.training_arguments(config, Hardware("cuda", "bf16", ""), Path("x"), True, 10)
    assert told["deepspeed"]["zero_optimization"] == {"stage": stage}
    assert told["deepspeed"]["gradient_clipping"] == "auto"
    assert told["bf16"]
    assert "fsdp" not in told


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [("bert", ["BertLayer"]), ("distilbert", ["TransformerBlock"]), ("gpt2", ["GPT2Block"]), ("mlp", [])],
)
def test_each_layer_is_a_part_of_its_own(architecture: str, layers: list[str]) -> None:
    own = architecture == "mlp"
    model = ModelConfig(architecture=architecture, init="random", config={} if own else TINY)
    built = build(model, "AutoModelForSequenceClassification", {} if own else NEEDED)
    assert loop._layer_classes(built) == layers


def test_the_hardware_line_says_where() -> None:
    text = str(Hardware("cpu", "fp32", "as asked for", processes=4, nodes=2, strategy="fsdp"))
    assert "4 processes of " in text
    assert " on 2 nodes, fsdp, fp32" in text


def test_a_run_on_nodes_begins_and_says_how_they_start(llmft: Run, here: Path) -> None:
    words = ("finetune", *SMOKE, "hardware.nodes=2", "hardware.processes=4", "run.dir=run")
    code, out, err = llmft(*words)
    assert (code, err) == (0, "")
    assert "torchrun --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d" in out
    assert "-m llmft.worker run" in out
    assert json.loads((here / "run/manifest.json").read_text())["status"] == "begun"
    assert not (here / "run/model").exists()
    assert llmft(*words, "resume=true")[1].count("torchrun") == 1
    code, _, err = llmft("finetune", "-m", *SMOKE, "hardware.nodes=2", "hardware.processes=2", "seed=0,1")
    assert code == 2
    assert "hardware.nodes  must be 1 in a sweep, which runs on one machine, got " in err


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("words", [[], ["adapter=lora"]])
def test_layers_that_are_computed_again_compute_the_same(words: list[str], llmft: Run, here: Path) -> None:
    calls = ("finetune", *SMOKE, *words, "hardware.precision=fp32", "model.config.hidden_dropout_prob=0.2")
    assert llmft(*calls, "run.dir=kept")[0] == 0
    assert llmft(*calls, "trainer.gradient_checkpointing=true", "run.dir=again")[0] == 0
    assert losses(here / "again") == pytest.approx(losses(here / "kept"), abs=1e-6)


def test_layers_are_computed_again() -> None:
    config = load("finetune", [*SMOKE, "trainer.gradient_checkpointing=true"])
    session = Session(config)
    session.prepare()
    session.build()
    model = session.model.train()
    calls = []
    model.bert.encoder.layer[0].intermediate.register_forward_hook(lambda *_: calls.append(1))
    features = session.splits["train"].features
    model(**session.task.objective.collate(features.__getitems__([0, 1]))).loss.backward()
    assert len(calls) == 2


FOR_LAYERS = {
    "trainer.gradient_checkpointing=true": "must be false for MLPForClassification, which does not support it",
    "hardware.strategy=fsdp hardware.processes=2": "must not be fsdp for MLPForClassification, which has no input embeddings",
}


@pytest.mark.parametrize("words", FOR_LAYERS)
def test_a_model_of_tables_has_no_layers(words: str, llmft: Run, here: Path) -> None:
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", "smoke=true", *words.split())
    assert code == 2
    assert FOR_LAYERS[words] in err
    assert list(here.iterdir()) == []


def test_another_number_of_processes_does_not_resume(llmft: Run, here: Path) -> None:
    """Random states and sums are those of each process, and a step would be of other rows."""
    words = ("finetune", *SMOKE, "run.dir=run")
    assert llmft(*words, "hardware.nodes=2", "hardware.processes=2")[0] == 0
    for change, key in (
        (["hardware.processes=4"], "processes"),
        (["hardware.processes=2", "hardware.strategy=fsdp"], "strategy"),
    ):
        code, _, err = llmft(*words, "hardware.nodes=2", *change, "resume=true")
        assert code == 2
        assert f"hardware.{key}  was " in err
        assert "goes on with the same configuration only" in err
