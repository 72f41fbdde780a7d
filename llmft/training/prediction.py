"""Answers of a model, the same code for training's evaluation, `eval` and all that comes after: float32, streaming."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from llmft.models.sharded import is_sharded
from llmft.tasks.task import Answer, Task
from llmft.training import processes
from llmft.training.features import FeatureSet


@dataclass(frozen=True)
class Prediction:
    """What a model says of the rows of a split."""

    answers: list[Answer]
    """One a row."""
    outputs: list[Any]
    """What the model put out, one a feature, with what was kept aside: what the answers were decoded from."""
    loss: float | None
    """Mean over what `Task.counted` counts, where there are labels."""


@contextmanager
def float32(model: torch.nn.Module) -> Iterator[None]:
    """Let the model compute in float32, in eval mode and without gradients.

    accelerate puts autocast into `model.forward`, on the instance: bfloat16 moves scores by 2.3e-3. It is set aside
    here and put back after.
    """
    autocast = model.__dict__.pop("forward", None)
    was_training = model.training
    model.eval()
    # Weights that are gathered in inference mode could not be trained with after.
    without_gradients = torch.no_grad() if is_sharded(model) else torch.inference_mode()
    try:
        with without_gradients:
            yield
    finally:
        model.train(was_training)
        if autocast is not None:
            model.__dict__["forward"] = autocast


def predict(task: Task[Any], state: Any, model: torch.nn.Module, features: FeatureSet, batch_size: int) -> Prediction:
    """Answer every row. Features of like length share a batch, so the padding is small; answers come in row order.

    Several processes share the batches, and each of them gets all answers.
    """
    device = next(model.parameters()).device
    with float32(model):
        own = [
            (numbers, *task.predict(model, batch), task.counted(batch))
            for numbers, batch in batches(task, state, features, batch_size, device)
        ]
        if is_sharded(model) and len(own) < math.ceil(len(features) / batch_size / processes.count()):
            # One batch less than others have: its answers are left out, but all must gather the weights as often.
            task.predict(model, next(batches(task, state, features, batch_size, device, first=True))[1])
    outputs: list[Any] = [None] * len(features)
    total, weighed = 0.0, 0
    for numbers, found, loss, count in chain.from_iterable(processes.gather(own)):
        for number, output in zip(numbers, found, strict=True):
            outputs[number] = output
        if loss is not None:
            total += loss * count
            weighed += count
    outputs = features.with_asides(outputs, range(len(outputs)))
    return Prediction(task.decode(outputs, features.rows, state), outputs, total / weighed if weighed else None)


def batches(
    task: Task[Any], state: Any, features: FeatureSet, size: int, device: torch.device | str, first: bool = False
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """This process's share of all batches: the numbers of their features, and the batch on `device`.

    Features of like length share a batch; the longest come first. `first`: that of the first process.
    """
    collate = task.collator(state)
    order = list(range(len(features)))
    if (lengths := features.lengths) is not None:
        order.sort(key=lambda number: -lengths[number])
    starts = range(0, len(order), size)
    for start in starts[0 if first else processes.number() :: processes.count()]:
        numbers = order[start : start + size]
        yield numbers, {key: value.to(device) for key, value in collate(features.__getitems__(numbers)).items()}
