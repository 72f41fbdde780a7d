"""Each schedule against numbers worked out by hand, and against transformers' own where it has one."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from llmft.config.load import load
from llmft.schema.optimizer import SchedulerConfig
from llmft.training.optimization import build_scheduler, lr_curve, lr_factor, scheduler_notes

# Steps 0 to 10 of ten, of which the first two warm up; an epoch has four.
EXPECTED: dict[str, tuple[dict[str, Any], list[float]]] = {
    "constant": ({}, [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    "linear": ({}, [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]),
    "linear to a tenth": ({"min_ratio": 0.1}, [0, 0.5, 1, 0.8875, 0.775, 0.6625, 0.55, 0.4375, 0.325, 0.2125, 0.1]),
    "cosine": ({}, [0, 0.5, 1, *((1 + math.cos(math.pi * i / 8)) / 2 for i in range(1, 9))]),
    "cosine_with_restarts": ({"cycles": 2}, [0, 0.5, 1, 0.853553, 0.5, 0.146447, 1, 0.853553, 0.5, 0.146447, 0]),
    "step": ({"gamma": 0.5}, [0, 0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]),
    "step, of three": ({"gamma": 0.5, "every": 3, "min_ratio": 0.3}, [0, 0.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]),
    "exponential": ({"gamma": 0.5}, [0, 0.5, *(0.5 ** (i / 4) for i in range(9))]),
    "polynomial": ({}, [0, 0.5, *((1 - i / 8) ** 2 for i in range(9))]),
    "inverse_sqrt": ({}, [0, 0.5, *(math.sqrt(2 / i) for i in range(2, 11))]),
    "wsd": ({"decay_ratio": 0.4}, [0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]),
}


def shares(name: str, **keys: Any) -> list[float]:
    scheduler = SchedulerConfig(name=name.partition(" ")[0].strip(","), warmup_steps=2, **keys)  # type: ignore[arg-type]
    return [lr_factor(scheduler, step, epoch=4, total=10) for step in range(11)]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_schedule_has_the_rates_of_its_formula(name: str) -> None:
    keys, expected = EXPECTED[name]
    assert shares(name, **keys) == pytest.approx(expected, abs=1e-6)


def test_every_schedule_is_tried() -> None:
    names = {name.partition(" ")[0].strip(",") for name in EXPECTED}
    assert names | {"plateau"} == set(SchedulerConfig.model_fields["name"].annotation.__args__)  # type: ignore[union-attr]


THEIRS: dict[str, tuple[dict[str, Any], Callable[..., Any], dict[str, Any]]] = {
    "constant": ({}, transformers.get_constant_schedule_with_warmup, {}),
    "linear": ({}, transformers.get_linear_schedule_with_warmup, {"num_training_steps": 10}),
    "cosine": ({}, transformers.get_cosine_schedule_with_warmup, {"num_training_steps": 10}),
    "cosine_with_restarts": ({"cycles": 3}, transformers.get_cosine_with_hard_restarts_schedule_with_warmup, {"num_training_steps": 10, "num_cycles": 3}),
    "polynomial": ({"power": 3}, transformers.get_polynomial_decay_schedule_with_warmup, {"num_training_steps": 10, "power": 3, "lr_end": 0}),
    "inverse_sqrt": ({}, transformers.get_inverse_sqrt_schedule, {}),
    "wsd": ({"decay_ratio": 0.3}, transformers.get_wsd_schedule, {"num_training_steps": 10, "num_decay_steps": 3, "decay_type": "linear"}),
}  # fmt: skip


@pytest.mark.parametrize("name", THEIRS)
def test_a_schedule_is_that_of_transformers(name: str) -> None:
    keys, make, theirs = THEIRS[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    factor = make(optimizer, num_warmup_steps=2, **theirs).lr_lambdas[0]
    assert shares(name, **keys) == pytest.approx([factor(step) for step in range(11)], abs=1e-6)


@pytest.mark.parametrize("warmup", [0, 9, 10, 30])
def test_any_warm_up_can_be_had(warmup: int) -> None:
    for name in (name for name, (keys, _) in EXPECTED.items() if not keys):
        scheduler = SchedulerConfig(name=name, warmup_steps=warmup)  # type: ignore[arg-type]
        assert all(0 <= lr_factor(scheduler, step, epoch=4, total=10) <= 1 for step in range(12))


def test_the_warm_up_is_a_share_of_all_steps() -> None:
    scheduler = SchedulerConfig(warmup_ratio=0.25)
    assert [lr_factor(scheduler, step, 4, 10) for step in range(4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_plateau_halves_the_rate_when_scores_stop_getting_better() -> None:
    config = load("finetune", ["scheduler=plateau", "scheduler.min_ratio=0.2"])  # of accuracy: more is better
    first, second = ([torch.nn.Parameter(torch.zeros(1))] for _ in range(2))
    optimizer = torch.optim.SGD([{"params": first, "lr": 1.0}, {"params": second, "lr": 0.1}])
    plateau = build_scheduler(config, optimizer, epoch=1, total=10)
    rates = []
    for score in (0.5, 0.6, 0.6, 0.55, 0.59, 0.61, 0.61, 0.61, 0.61, 0.61):
        plateau.step(score)  # type: ignore[arg-type]
        rates.append([group["lr"] for group in optimizer.param_groups])
    expected = [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2]
    assert [rate for rate, _ in rates] == pytest.approx(expected)
    assert [rate for _, rate in rates] == pytest.approx([rate / 10 for rate in expected])


def test_the_plan_is_what_is_drawn() -> None:
    config = load("finetune", ["scheduler=linear", "scheduler.warmup_ratio=0", "optimizer.lr=2", "trainer.epochs=1"])
    assert lr_curve(config, epoch=4, total=4) == [(1, 2.0), (2, 1.5), (3, 1.0), (4, 0.5)]
    assert len(lr_curve(config, epoch=4, total=5000)) == 200
    assert lr_curve(load("finetune", ["scheduler=plateau"]), epoch=4, total=9) == []


@pytest.mark.parametrize(
    ("words", "steps", "note"),
    [
        (("scheduler.warmup_steps=100",), 80, "rises for 100 steps, and the run has 80: it never reaches optimizer.lr. Write scheduler.warmup_steps=8"),
        (("scheduler.warmup_steps=80",), 80, "rises for 80 steps"),
        (("scheduler.warmup_steps=79",), 80, ""),
        ((), 80, ""),
        ((), 1, ""),
    ],
)  # fmt: skip
def test_a_warm_up_that_is_longer_than_the_training_is_said(words: tuple[str, ...], steps: int, note: str) -> None:
    notes = scheduler_notes(load("finetune", ["scheduler.warmup_ratio=0", *words] if words else []), steps)
    assert len(notes) == bool(note)
    assert note in "".join(notes)
