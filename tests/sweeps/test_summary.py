"""Which job is the best, and by what, worked out by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmft.config.load import load
from llmft.schema.job import Job
from llmft.sweeps.layout import Sweep
from llmft.sweeps.summary import summarize, write_summary

Scored = tuple[dict[str, Any], dict[str, float | None] | None, dict[str, float | None] | None]


@pytest.fixture
def sweep(here: Path) -> Callable[..., Sweep]:
    """A sweep of finished jobs: values, validation and test scores; without either, a failed one."""

    def make(*jobs: Scored, words: tuple[str, ...] = ()) -> Sweep:
        config = load("finetune", ["+recipe=bert_textcls", *words, "run.dir=s"])
        found = Sweep.of([Job(values, config) for values, _, _ in jobs])
        for entry, (_, validation, test) in zip(found.entries, jobs, strict=True):
            entry.status = "done" if validation or test else "failed"
            scores = {"validation": validation, "test": test}
            metrics = {"train": {"total_seconds": 10.0 * entry.number}} | {k: v for k, v in scores.items() if v}
            entry.folder.mkdir(parents=True)
            (entry.folder / "metrics.json").write_text(json.dumps(metrics))
        return found

    return make


def acc(value: float | None) -> dict[str, float | None]:
    return {"accuracy": value, "loss": 1 - (value or 0)}


def lr(value: float, **more: Any) -> dict[str, Any]:
    return {"optimizer.lr": value, **more}


def test_mean_and_deviation_over_seeds(sweep: Callable[..., Sweep]) -> None:
    jobs: list[Scored] = [
        (lr(1, seed=0), acc(0.5), acc(0.9)),
        (lr(1, seed=1), acc(0.7), acc(0.9)),
        (lr(2, seed=0), acc(0.6), acc(0.1)),
        (lr(2, seed=1), acc(0.8), acc(0.3)),
        (lr(3, seed=0), None, None),
        (lr(3, seed=1), acc(0.65), acc(0.2)),
    ]
    facts = summarize(sweep(*jobs))
    assert [group["values"]["optimizer.lr"] for group in facts["ranking"]] == [2, 1, 3]
    first, _, lacking = facts["ranking"]  # what lacks a seed comes after what has all
    # 0.6 and 0.8: mean 0.7, and sqrt((0.1² + 0.1²) / (2 - 1)) = 0.1414
    assert first["validation"] == pytest.approx({"mean": 0.7, "sd": 0.02**0.5, "count": 2})
    assert first["test"] == pytest.approx({"mean": 0.2, "sd": 0.02**0.5, "count": 2})
    assert first["seconds"] == 35
    assert lacking["validation"] == {"mean": 0.65, "sd": None, "count": 1}
    assert (facts["split"], facts["best"]) == ("validation", "lr-2_seed-1")


CASES: dict[str, tuple[list[Scored], tuple[str, ...], list[float], str | None]] = {
    "more is better": ([(lr(1), acc(0.5), acc(0.9)), (lr(2), acc(0.6), acc(0.1))], (), [2, 1], "lr-2"),
    "less is better": ([(lr(1), acc(0.5), None), (lr(2), acc(0.6), None)], ("trainer.metric_for_best=loss",), [2, 1], "lr-2"),
    "by test without validation": ([(lr(1), None, acc(0.5)), (lr(2), None, acc(0.6))], (), [2, 1], "lr-2"),
    "failed ones come last": ([(lr(1), None, None), (lr(2), acc(0.1), None)], (), [2, 1], "lr-2"),
    "so do those without a score": ([(lr(1), acc(None), None), (lr(2), acc(0.0), None)], (), [2, 1], "lr-2"),
    "the first of equals": ([(lr(1), acc(0.5), None), (lr(2), acc(0.5), None)], (), [1, 2], "lr-1"),
    "none is done": ([(lr(1), None, None), (lr(2), None, None)], (), [1, 2], None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_best_comes_first(case: str, sweep: Callable[..., Sweep]) -> None:
    jobs, words, order, best = CASES[case]
    facts = summarize(sweep(*jobs, words=words))
    assert [group["values"]["optimizer.lr"] for group in facts["ranking"]] == order
    assert facts["best"] == best


def test_what_is_written_is_what_is_told(sweep: Callable[..., Sweep], here: Path) -> None:
    made = sweep((lr(1), acc(0.5), None), (lr(2), None, None))
    made.entries[1].reason = "loss is nan"
    facts = write_summary(made)
    assert json.loads((here / "s/summary.json").read_text()) == facts
    assert [(job["status"], job["reason"]) for job in facts["jobs"]] == [("done", None), ("failed", "loss is nan")]
    best = (here / "s/best.yaml").read_text()
    assert best.startswith("# @package _global_\n")
    assert load("finetune", ["s/best.yaml"]) == load("finetune", ["+recipe=bert_textcls"])


def test_the_short_recipe_is_composed_once_no_job_is_left(sweep: Callable[..., Sweep], here: Path) -> None:
    made = sweep((lr(1), acc(0.5), None))
    made.entries[0].job = replace(made.entries[0].job, recipe=lambda config: f"short {config.name}")
    write_summary(made, at_work=True)
    assert load("finetune", ["s/best.yaml"]) == load("finetune", ["+recipe=bert_textcls"])
    write_summary(made)
    assert (here / "s/best.yaml").read_text() == "short bert_textcls"


def test_of_equal_scores_the_smaller_loss_is_the_best(sweep: Callable[..., Sweep]) -> None:
    losses = {1: 0.5, 2: 0.2, 3: 0.4}
    facts = summarize(sweep(*((lr(n), {"accuracy": 1.0, "loss": loss}, None) for n, loss in losses.items())))
    assert [group["values"]["optimizer.lr"] for group in facts["ranking"]] == [2, 3, 1]
    assert facts["best"] == "lr-2"
