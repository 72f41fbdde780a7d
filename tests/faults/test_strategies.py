"""Strategies and adapters on two processes: the same result as one process, and the same again after a stop."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmft.runs import checkpoints
from tests.commands.test_launch import launch
from tests.faults.test_processes import SCRIPT, Run, numbers
from tests.faults.test_processes import llmft as llmft  # the fixture that sees what processes print
from tests.faults.test_processes import warm as warm
from tests.faults.test_resume import outcome

SMOKE = ("finetune", "+recipe=bert_textcls", "smoke=true", "trainer.save_every=2", "trainer.eval_every=2")
# Three batches of validation rows: one of two processes has one less. SGD, since Adam would hide a factor.
STILL = (
    "model.config.hidden_dropout_prob=0",
    "model.config.attention_probs_dropout_prob=0",
    "optimizer=sgd",
    "optimizer.lr=0.1",
    "hardware.precision=fp32",
    "trainer.eval_batch_size=6",
)
TWO = (*SMOKE, "hardware.processes=2", "trainer.batch_size=4")


def test_fsdp_gives_what_one_process_gives(llmft: Run, here: Path, warm: None) -> None:
    assert llmft(*SMOKE, *STILL, "run.dir=one")[0] == 0
    code, out, err = llmft(*TWO, *STILL, "hardware.strategy=fsdp", "trainer.keep_finished=true", "run.dir=two")
    assert (code, err) == (0, "")
    assert "2 processes of 1 thread, fsdp, fp32" in out
    (_, steps_one, scores_one), (_, steps_two, scores_two) = outcome(here / "one"), outcome(here / "two")
    assert len(steps_one) == len(steps_two) == 12
    for one, two in zip([*steps_one, *scores_one.values()], [*steps_two, *scores_two.values()], strict=True):
        assert numbers(two) == pytest.approx(numbers(one), abs=1e-4)
    assert (here / "one/model/config.json").read_text() == (here / "two/model/config.json").read_text()
    found, passed_over = checkpoints.latest(here / "two/checkpoints")
    assert found is not None
    assert passed_over == []
    names = {file.name for file in found.iterdir()}
    assert {"model.safetensors", "optimizer.bin", "rng_state_0.pth", "rng_state_1.pth"} <= names
    assert not [name for name in names if "fsdp" in name]
    assert llmft("eval", "two", "run.dir=again")[0] == 0
    again = json.loads((here / "again/metrics.json").read_text())
    assert numbers(again["test"]) == pytest.approx(numbers(scores_two["test"]), abs=1e-6)


KINDS = {
    "fsdp": ["hardware.strategy=fsdp"],
    "fsdp, accumulation, bfloat16": [
        "hardware.strategy=fsdp",
        "trainer.accumulation=2",
        "trainer.batch_size=2",
        "hardware.precision=bf16",
    ],
    "an adapter": ["adapter=lora", "adapter.dropout=0.2"],
    "layers computed again": ["trainer.gradient_checkpointing=true", "hardware.strategy=fsdp"],
}


@pytest.mark.slow  # three starts of two processes each
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_it_is_the_same_bit_for_bit(kind: str, llmft: Run, here: Path, monkeypatch: Any) -> None:
    words = [*TWO, *KINDS[kind], "model.config.hidden_dropout_prob=0.2"]
    assert llmft(*words, "run.dir=whole")[0] == 0
    with monkeypatch.context() as patched:
        script = SCRIPT.format(step=5, act="rank and os.kill(os.getpid(), 15)")
        patched.setattr(launch, "COMMAND", (sys.executable, "-c", script))
        code, _, err = llmft(*words, "run.dir=run")
    assert code == 75, err
    code, _, err = llmft(*words, "run.dir=run", "resume=true")
    assert code == 0, err
    assert outcome(here / "run") == outcome(here / "whole")


@pytest.mark.slow
def test_two_nodes_do_what_two_processes_do(llmft: Run, here: Path) -> None:
    """Both on this machine; what torchrun writes into the environment is that of two."""
    assert llmft(*TWO, "run.dir=one")[0] == 0
    code, out, _ = llmft(*TWO, "hardware.nodes=2", "run.dir=two")
    assert code == 0
    command = out[out.index("torchrun") :].replace("\\\n", " ").replace("FIRST", "127.0.0.1").split()
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *command[1:]],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in started:
        assert process.wait(timeout=240) == 0, process.stderr.read().decode()
    assert outcome(here / "two") == outcome(here / "one")
