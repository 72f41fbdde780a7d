"""The learning rate over time: the same warm-up and the same floor for every shape."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.optimizer import SchedulerConfig


def schedule(config: Config, optimizer: torch.optim.Optimizer, epoch: int, total: int) -> LRScheduler:
    """What moves the learning rates of an optimizer, step by step, or after each evaluation for `plateau`.

    Args:
        epoch: steps of an epoch.
        total: steps of the run.
    """
    scheduler = config.scheduler
    if scheduler.name == "plateau":
        better = METRICS[config.metric_for_best]
        floors = [group["lr"] * scheduler.min_ratio for group in optimizer.param_groups]
        return ReduceLROnPlateau(
            optimizer,
            mode="max" if better else "min",
            factor=scheduler.factor,
            patience=scheduler.patience,
            threshold=0,  # better is what early stopping and the best checkpoint call so
            min_lr=floors,
            eps=0,
        )
    return LambdaLR(optimizer, lambda step: share(scheduler, step, epoch, total))


def warmup_of(scheduler: SchedulerConfig, total: int) -> int:
    """The steps in which the learning rate rises."""
    return scheduler.warmup_steps or math.ceil(scheduler.warmup_ratio * total)


def notes_of(config: Config, total: int) -> list[str]:
    """A line where the learning rate never gets to its peak, or only at the end."""
    warmup = warmup_of(config.scheduler, total)
    if warmup < total or total == 1:
        return []
    return [
        f"the learning rate rises for {warmup:,} steps, and there are {total:,}: it never gets to optimizer.lr. "
        f"Write scheduler.warmup_steps={max(1, total // 10)}, or train for longer"
    ]


def share(scheduler: SchedulerConfig, step: int, epoch: int, total: int) -> float:
    """The learning rate of a step, as a share of its peak.

    Args:
        step: the steps that were taken before.
        epoch: steps of an epoch.
        total: steps of the run.
    """
    warmup = warmup_of(scheduler, total)
    if step < warmup:
        return step / warmup
    after = step - warmup
    left = max(0.0, 1 - after / max(total - warmup, 1))  # share of the steps after the warm-up, from 1 to 0
    every = epoch if scheduler.every == "epoch" else scheduler.every
    floor = scheduler.min_ratio
    match scheduler.name:
        case "linear":
            shape = left
        case "polynomial":
            shape = left**scheduler.power
        case "cosine":
            shape = (1 + math.cos(math.pi * (1 - left))) / 2
        case "cosine_with_restarts":
            shape = (1 + math.cos(math.pi * (scheduler.cycles * (1 - left) % 1))) / 2 if left else 0.0
        case "wsd":
            shape = min(1.0, max(0, total - step) / (scheduler.decay_ratio * total))
        case "step":
            return max(floor, scheduler.gamma ** (after // every))
        case "exponential":
            return max(floor, scheduler.gamma ** (after / every))
        case "inverse_sqrt":
            return max(floor, math.sqrt(max(warmup, 1) / max(step, 1)))
        case _:
            return 1.0
    return floor + (1 - floor) * shape


def planned(config: Config, epoch: int, total: int) -> list[tuple[float, float]]:
    """The learning rate by step, counted from 1, at 200 steps of the run or at all; none for `plateau`."""
    if config.scheduler.name == "plateau":
        return []
    steps = sorted({1 + round(i * (total - 1) / 199) for i in range(200)})
    return [(step, config.optimizer.lr * share(config.scheduler, step - 1, epoch, total)) for step in steps]
