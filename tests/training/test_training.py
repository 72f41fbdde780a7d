"""The training loop on tiny models: what it logs, keeps and scores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmft.training.evaluation import float32, weighted_mean

Run = Callable[..., tuple[int, str, str]]
SMOKE = ("+recipe=bert_textcls", "smoke=true", "run.dir=run")


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_p1_the_same_seed_gives_the_same_run(llmft: Run, here: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert llmft("finetune", *SMOKE[:2], f"run.dir={name}", f"seed={seed}")[0] == 0
    a, b, c = ([event["loss"] for event in events(here / name)] for name in "abc")
    assert a == b != c
    weights = [(here / name / "model/model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_accumulated_batches_are_one_large_batch(llmft: Run, here: Path) -> None:
    """Without dropout, two batches of 4 accumulated give the losses of one batch of 8. SGD: Adam would hide a factor."""
    still = ["model.config.hidden_dropout_prob=0", "model.config.attention_probs_dropout_prob=0"]
    plain = [
        "optimizer=sgd",
        "optimizer.lr=0.1",
        "trainer.max_grad_norm=0",
        "trainer.group_by_length=false",
        "hardware.precision=fp32",
    ]
    for name, rows, accumulation in (("a", 8, 1), ("b", 4, 2)):
        words = (f"run.dir={name}", f"trainer.batch_size={rows}", f"trainer.accumulation={accumulation}")
        assert llmft("finetune", *SMOKE[:2], *words, *still, *plain)[0] == 0
    a, b = ([e["loss"] for e in events(here / name) if e["split"] == "train"] for name in "ab")
    assert len(a) == len(b) == 8
    assert a == pytest.approx(b, abs=1e-5)


def test_a_shorter_last_batch_counts_by_its_rows(llmft: Run, here: Path) -> None:
    """Ten rows as batches of 4, 4 and 2 are one step over ten rows."""
    words = ("+recipe=tabular_mlp", "smoke=true", "dataset.max_rows=10", "trainer.max_steps=3", "optimizer=sgd")
    plain = ("optimizer.lr=0.1", "trainer.max_grad_norm=0", "hardware.precision=fp32", "optimizer.momentum=0")
    losses = []
    for rows, accumulation in ((10, 1), (4, 3)):
        sizes = (f"trainer.batch_size={rows}", f"trainer.accumulation={accumulation}", f"run.dir=of{rows}")
        assert llmft("finetune", *words, *plain, *sizes)[0] == 0
        losses.append([e["loss"] for e in events(here / f"of{rows}") if e["split"] == "train"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


SCHEDULES = {
    "linear": [0.0, 0.5, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6],
    "cosine": [0.0, 0.5, 1.0, 0.9330, 0.75, 0.5, 0.25, 0.0670],
    "constant": [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "step": [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.1, 0.1],  # an epoch has four steps
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_learning_rate_follows_its_schedule(name: str, llmft: Run, here: Path) -> None:
    words = (f"scheduler={name}", "scheduler.warmup_steps=2", "scheduler.warmup_ratio=0", "optimizer.lr=0.01")
    assert llmft("finetune", *SMOKE, *words)[0] == 0
    rates = [event["lr"] / 0.01 for event in events(here / "run") if event["split"] == "train"]
    assert rates == pytest.approx(SCHEDULES[name], abs=1e-4)


def test_the_best_checkpoint_is_the_one_that_is_kept(llmft: Run, here: Path) -> None:
    """A learning rate that wrecks the model late: the result is that of the best evaluation, not of the last."""
    words = ("trainer.max_steps=40", "trainer.batch_size=16", "trainer.eval_every=4", "trainer.save_every=4", "optimizer.lr=0.01",
             "dataset.max_rows=256", "scheduler=constant", "trainer.keep=2", "trainer.metric_for_best=loss",
             "trainer.keep_finished=true")  # fmt: skip
    assert llmft("finetune", *SMOKE, *words)[0] == 0
    losses = [event["loss"] for event in events(here / "run") if event["split"] == "validation"]
    assert len(losses) == 10
    assert metrics(here / "run")["validation"]["loss"] == pytest.approx(min(losses), abs=1e-6)
    kept = [folder.name for folder in (here / "run/checkpoints").iterdir()]
    assert f"checkpoint-{4 * (losses.index(min(losses)) + 1)}" in kept
    assert len(kept) <= 3


def test_the_best_is_saved_even_where_no_checkpoint_is_due(llmft: Run, here: Path) -> None:
    words = ("trainer.max_steps=24", "trainer.eval_every=2", "trainer.save_every=8", "optimizer.lr=0.05", "scheduler=constant",
             "trainer.metric_for_best=loss", "trainer.keep_finished=true")  # fmt: skip
    assert llmft("finetune", *SMOKE, *words)[0] == 0
    losses = [event["loss"] for event in events(here / "run") if event["split"] == "validation"]
    best = 2 * (losses.index(min(losses)) + 1)
    assert best % 8, "an evaluation between two checkpoints"
    assert metrics(here / "run")["validation"]["loss"] == pytest.approx(min(losses), abs=1e-6)
    assert (here / f"run/checkpoints/checkpoint-{best}").is_dir()


TIES = {  # (accuracy, loss) of steps 1 to 6, the steps that are the best so far
    "the smaller loss, then the later step": ([(0.5, 0.7), (0.9, 0.6), (0.9, 0.4), (0.9, 0.5), (0.9, 0.4), (0.8, 0.3)], [1, 2, 3, 5]),
    "a better score at a larger loss": ([(0.5, 0.7), (0.6, 0.9), (0.6, 0.95), (0.6, 0.9), (0.5, 0.1), (0.5, 0.1)], [1, 2, 4]),
}  # fmt: skip


@pytest.mark.parametrize("case", TIES)
def test_of_equal_scores_the_smaller_loss_is_the_best(
    case: str, llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted, best = TIES[case]
    scores = iter({"accuracy": accuracy, "loss": loss} for accuracy, loss in scripted)
    monkeypatch.setattr("llmft.training.loop.evaluate", lambda *_: (next(scores), None))
    words = (
        "trainer.max_steps=6",
        "trainer.eval_every=1",
        "trainer.save_every=1",
        "trainer.keep_finished=true",
        "trainer.metric_for_best=accuracy",
        "run.dir=run",
    )
    code, out, _ = llmft("finetune", "+recipe=tabular_mlp", "smoke=true", *words)
    assert code == 0
    shown = [line for line in out.splitlines() if "validation: " in line]
    assert [step for step, line in enumerate(shown, 1) if "(best so far)" in line] == best
    state = json.loads((here / "run/checkpoints/checkpoint-6/trainer_state.json").read_text())
    assert state["best_global_step"] == best[-1]
    assert (here / f"run/checkpoints/checkpoint-{best[-1]}").is_dir()


def test_an_equal_score_does_not_reset_patience(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter({"accuracy": 0.9, "loss": 1 / step} for step in range(1, 9))
    monkeypatch.setattr("llmft.training.loop.evaluate", lambda *_: (next(scores), None))
    words = (
        "trainer.max_steps=8",
        "trainer.eval_every=1",
        "trainer.save_every=1",
        "trainer.keep_finished=true",
        "trainer.metric_for_best=accuracy",
        "trainer.patience=2",
    )
    assert llmft("finetune", "+recipe=tabular_mlp", "smoke=true", *words, "run.dir=run")[0] == 0
    assert metrics(here / "run")["train"]["steps"] == 3
    state = json.loads((here / "run/checkpoints/checkpoint-3/trainer_state.json").read_text())
    assert state["best_global_step"] == 3


def test_patience_stops_early(llmft: Run, here: Path) -> None:
    words = (
        "trainer.max_steps=60",
        "trainer.eval_every=2",
        "trainer.save_every=2",
        "trainer.patience=2",
        "optimizer.lr=1e-12",
    )
    assert llmft("finetune", *SMOKE, *words)[0] == 0
    assert metrics(here / "run")["train"]["steps"] < 60


def test_without_validation_it_trains_to_the_end(llmft: Run, here: Path, write: Callable[[str, str], Path]) -> None:
    write("a.csv", "text,label\n" + "".join(f"word{i} {'good' if i % 2 else 'bad'},{i % 2}\n" for i in range(40)))
    words = ("dataset=csv", "dataset.train=a.csv", "dataset.split.validation=0")
    assert llmft("finetune", *SMOKE, *words)[0] == 0
    found = metrics(here / "run")
    assert set(found) == {"train", "test"}
    assert found["train"]["steps"] == 8


def test_bfloat16_trains_and_scores_in_float32(llmft: Run, here: Path) -> None:
    assert llmft("finetune", *SMOKE, "hardware.precision=bf16")[0] == 0
    assert llmft("eval", "run", "run.dir=again", "hardware.precision=fp32")[0] == 0
    assert metrics(here / "again")["test"] == metrics(here / "run")["test"]
    last = [event for event in events(here / "run") if event["split"] == "validation"]
    assert metrics(here / "run")["validation"]["loss"] in [pytest.approx(event["loss"], abs=1e-7) for event in last]


def test_a_mean_of_losses_weighs_what_has_a_label() -> None:
    assert weighted_mean([(1.0, 3), (5.0, 1)]) == 2.0
    assert weighted_mean([(0.0, 0), (0.0, 0)]) is None  # sentences of invisible characters have no word with a label


def test_float32_sets_autocast_aside_and_puts_it_back() -> None:
    model = torch.nn.Linear(2, 2).train()
    plain = model.forward

    def autocast(*inputs: torch.Tensor) -> torch.Tensor:
        return plain(*inputs).bfloat16()

    model.forward = autocast  # as accelerate does
    with float32(model):
        assert model(torch.ones(1, 2)).dtype == torch.float32
        assert not model.training
    assert model(torch.ones(1, 2)).dtype == torch.bfloat16
    assert model.training


def test_what_training_took_is_recorded(llmft: Run, here: Path) -> None:
    assert llmft("finetune", *SMOKE)[0] == 0
    train = metrics(here / "run")["train"]
    assert {"seconds", "evaluation_seconds", "saving_seconds", "steps", "epochs", "batch_size", "loss", "samples_per_second",
            "tokens_per_second", "peak_memory_bytes", "total_seconds"} == set(train)  # fmt: skip
    assert (train["steps"], train["epochs"]) == (8, 2.0)
    assert train["samples_per_second"] == pytest.approx(64 / train["seconds"])
    assert 1e8 < train["peak_memory_bytes"] < 5e10  # of all that this process has done
    assert train["total_seconds"] > train["seconds"] + train["evaluation_seconds"] + train["saving_seconds"]
