"""What is said of learning on the command line, from the words to the run folder."""

import json
import re
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pyarrow
import pytest
import torch
from safetensors.torch import load_file

from llmft.config.grid import jobs
from llmft.config.load import load
from llmft.training.features import FeatureSet
from llmft.training.optimization import (
    MAX_TOKENS,
    effective_batch_size,
    planned_steps,
    resolve_batch_size,
    steps_per_epoch,
)

Run = Callable[..., tuple[int, str, str]]
SMOKE = ("finetune", "+recipe=bert_textcls", "smoke=true")


def documented() -> list[str]:
    """The commands of docs/training.md."""
    page = Path(__file__).resolve().parents[2] / "docs/training.md"
    return re.findall(r"^    llmft (finetune .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_commands_of_the_page_are_right() -> None:
    found = [shlex.split(line) for line in documented()]
    assert len(found) >= 9
    for command, *words in found:
        assert jobs(command, [word for word in words if word != "-m"], multirun="-m" in words)


def logged(folder: Path, key: str) -> list[float]:
    events = (json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines())
    return [event[key] for event in events if event["split"] == "train"]


def test_all_rows_are_one_step(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one batch, and in portions where that is too much at once: the losses of batches of 32, which are all rows."""
    still = ("model.dropout=0", "hardware.precision=fp32", "optimizer=sgd", "optimizer.lr=0.1", "trainer.max_steps=3")
    assert llmft(*SMOKE, *still, "trainer.batch_size=32", "run.dir=a")[0] == 0
    code, out, _ = llmft(*SMOKE, *still, "trainer.batch_size=all", "run.dir=b")
    assert code == 0
    assert "3 steps of all 32 rows, sgd" in out
    monkeypatch.setattr("llmft.training.optimization.MAX_TOKENS", 200)
    assert llmft(*SMOKE, *still, "trainer.batch_size=all", "run.dir=c")[0] == 0
    one, whole, portions = (logged(here / name, "loss") for name in "abc")
    assert len(one) == 3
    assert one == pytest.approx(whole, abs=1e-6)
    assert one == pytest.approx(portions, abs=1e-5)
    rows = [json.loads((here / name / "metrics.json").read_text())["train"]["batch_size"] for name in "abc"]
    assert rows[0] == rows[1] == 32 > rows[2]
    assert "3 steps of all rows" in (here / "b/README.md").read_text()


@pytest.mark.parametrize(
    ("rows", "lengths", "processes", "batch", "accumulation"),
    [
        (1000, None, 1, 1000, 1),
        (1000, [MAX_TOKENS // 100, 3], 1, 100, 10),
        (1001, [MAX_TOKENS // 100, 3], 1, 101, 10),  # of like sizes: no last one of a single row
        (1000, [MAX_TOKENS // 100, 3], 2, 100, 5),
        (7, [MAX_TOKENS * 3, 1], 1, 1, 7),
        (MAX_TOKENS * 2 + 1, None, 1, MAX_TOKENS * 2 // 3 + 1, 3),
    ],
)
def test_portions_of_all_rows_are_of_like_sizes(
    rows: int, lengths: list[int] | None, processes: int, batch: int, accumulation: int
) -> None:
    config = load("finetune", ["trainer.batch_size=all", f"hardware.processes={processes}", "trainer.epochs=5"])

    assert (effective_batch_size(config, rows), steps_per_epoch(config, rows), planned_steps(config, rows)) == (
        rows,
        1,
        5,
    )
    found = resolve_batch_size(config, FeatureSet(pyarrow.table({}), list(range(rows)), lengths, cut=0))
    assert (found.trainer.batch_size, found.trainer.accumulation) == (batch, accumulation)
    assert steps_per_epoch(found, rows) == 1


def test_layers_train_from_their_epoch_on(llmft: Run, here: Path) -> None:
    """Of two layers, four steps an epoch: the weights of each checkpoint tell what has moved."""
    words = ("trainer.max_steps=16", "trainer.keep=9", "model.unfreeze=1", "optimizer.lr=0.01", "scheduler=constant")
    code, out, _ = llmft(*SMOKE, *words, "run.dir=run", "trainer.keep_finished=true")
    assert code == 0
    assert "layers.1            204,064  trains from epoch 2 on" in out
    moved = []
    saved = [load_file(here / f"run/checkpoints/checkpoint-{step}/model.safetensors") for step in (4, 8, 12, 16)]
    for before, after in pairwise(saved):
        names = [name for name in after if not torch.equal(before[name], after[name])]
        moved.append({name.partition("bert.")[2].removeprefix("encoder.")[:7] for name in names})
    head = {"", "pooler."}
    assert moved == [{*head, "layer.1"}, {*head, "layer.1", "layer.0"}, {*head, "layer.1", "layer.0", "embeddi"}]
    trained = json.loads((here / "run/manifest.json").read_text())["trains"]
    assert [line["trains"] for line in trained][:3] == [f"trains from epoch {epoch} on" for epoch in (4, 3, 2)]


@pytest.mark.slow  # 30 s
def test_processes_do_not_wait_for_layers_that_do_not_train_yet(llmft: Run, here: Path) -> None:
    words = ("model.unfreeze=1", "optimizer.lr=0.01", "scheduler=constant", "trainer.max_steps=4", "trainer.keep=9")
    both = ("hardware.processes=2", "trainer.gradient_checkpointing=true")
    assert llmft(*SMOKE, *words, *both, "run.dir=run", "trainer.keep_finished=true")[0] == 0
    before, after = (load_file(here / f"run/checkpoints/checkpoint-{step}/model.safetensors") for step in (2, 4))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in before if "layer.1." in name} <= moved
    assert not any("layer.0." in name or "embeddings" in name for name in moved)


def test_frozen_parts_stay_and_the_report_says_so(llmft: Run, here: Path) -> None:
    words = ("model.freeze=[embeddings,layers.0]", "optimizer=rmsprop", "scheduler=wsd", "optimizer.lr=0.01")
    code, out, _ = llmft(*SMOKE, *words, "run.dir=run", "trainer.keep=2", "trainer.keep_finished=true")
    assert code == 0
    assert "  trains    embeddings           19,360  frozen\n            layers.0            204,064  frozen\n" in out
    first, last = (load_file(here / f"run/checkpoints/checkpoint-{step}/model.safetensors") for step in (4, 8))
    still = {name for name in first if torch.equal(first[name], last[name])}
    assert still == {name for name in first if "embeddings" in name or "layer.0" in name}
    report = (here / "run/report.html").read_text()
    assert "Trained parameters" in report
    assert "learning rate by step" in report
    assert ">planned<" in report
    assert llmft("eval", "run", "run.dir=again")[0] == 0
    assert "Trained parameters" not in (here / "again/report.html").read_text()


def test_a_plateau_lowers_the_rate_by_the_scores_of_the_run(llmft: Run, here: Path) -> None:
    words = (
        "scheduler=plateau",
        "scheduler.patience=0",
        "optimizer.lr=1e-7",
        "trainer.eval_every=2",
        "trainer.save_every=2",
    )
    assert llmft(*SMOKE, *words, "run.dir=run")[0] == 0  # too small a rate to get better
    assert logged(here / "run", "lr") == pytest.approx([1e-7] * 4 + [5e-8] * 2 + [2.5e-8] * 2)
    report = (here / "run/report.html").read_text()
    assert "learning rate by step" in report
    assert ">planned<" not in report


def test_rates_by_layer_want_layers_before_anything_is_written(llmft: Run, here: Path) -> None:
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", "smoke=true", "optimizer.layer_decay=0.9", "run.dir=run")
    assert code == 2
    assert "optimizer.layer_decay  MLPForClassification has no numbered layers" in err
    assert not (here / "run").exists()
