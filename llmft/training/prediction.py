"""Answers of a model, the same code for training's evaluation, `eval` and all that comes after: float32, streaming."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import torch

from llmft.models.adapters import within
from llmft.models.weights import is_sharded
from llmft.tasks.task import Answer, Task
from llmft.training import processes
from llmft.training.features import FeatureSet

# Models whose answers depend on padding in spite of the attention mask, by architecture or class: Fourier transforms
# (fnet) and convolutions over neighbours (convbert, canine), tokens that are pooled or sampled (funnel, nystromformer,
# mra, yoso, reformer), another kind of attention from a number of columns on (big_bird), a state that knows no mask
# (rwkv). Decoders that were made for an encoder count positions from the first column, and prompts are padded there.
# tests/training/test_padding.py tries every architecture that transformers has.
PADDING_MATTERS = {"big_bird", "bigbird_pegasus", "canine", "convbert", "fnet", "funnel"}
PADDING_MATTERS |= {"mra", "nystromformer", "reformer", "rwkv", "yoso"}
PADDING_MATTERS |= {
    "BartForCausalLM",
    "BlenderbotForCausalLM",
    "BlenderbotSmallForCausalLM",
    "MBartForCausalLM",
    "MarianForCausalLM",
    "MvpForCausalLM",
    "PLBartForCausalLM",
    "PegasusForCausalLM",
    "ProphetNetForCausalLM",
    "TrOCRForCausalLM",
    "XLNetLMHeadModel",
}


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


def predict(
    task: Task[Any],
    model: torch.nn.Module,
    features: FeatureSet,
    batch_size: int,
    seen: Callable[[int], None] | None = None,
) -> Prediction:
    """Answer every row. Features of like length share a batch, so the padding is small; answers come in row order.

    Several processes share the batches, and each of them gets all answers.

    Args:
        seen: hears after each batch how many features it had, those of all processes.
    """
    own = []
    with float32(model):
        for numbers, batch in batches(task, features, batch_size, model):
            own.append((numbers, *task.predict(model, batch), task.loss_weight(batch)))
            if seen:
                seen(len(numbers) * processes.count())
        if is_sharded(model) and len(own) < math.ceil(len(_shared(features, batch_size, model)) / processes.count()):
            # One batch less than others have: its answers are left out, but all must gather the weights as often.
            task.predict(model, next(batches(task, features, batch_size, model, first=True))[1])
    outputs: list[Any] = [None] * len(features)
    total, weighed = 0.0, 0
    for numbers, found, loss, count in chain.from_iterable(processes.gather(own)):
        for number, output in zip(numbers, found, strict=True):
            outputs[number] = output
        if loss is not None:
            total += loss * count
            weighed += count
    outputs = features.with_asides(outputs, range(len(outputs)))
    return Prediction(task.decode(outputs, features.rows), outputs, total / weighed if weighed else None)


def batches(
    task: Task[Any], features: FeatureSet, size: int, model: torch.nn.Module, first: bool = False
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """This process's share of all batches: the numbers of their features, and the batch where `model` is.

    Features of like length share a batch; the longest come first. `first`: that of the first process.
    """
    device = next(model.parameters()).device
    collate = task.collator()
    all_batches = _shared(features, size, model)
    for numbers in all_batches[0 if first else processes.number() :: processes.count()]:
        yield numbers, {key: value.to(device) for key, value in collate(features.__getitems__(numbers)).items()}


def _shared(features: FeatureSet, size: int, model: torch.nn.Module) -> list[list[int]]:
    """The numbers of the features in each batch, the longest first.

    Where padding would change an answer, all features of a batch are of one length, so that there is none.
    """
    order = list(range(len(features)))
    lengths = features.lengths
    if lengths is None:
        groups = [order]
    else:
        order.sort(key=lambda number: -lengths[number])
        plain = within(getattr(model, "module", model))
        apart = not PADDING_MATTERS.isdisjoint((plain.config.model_type, type(plain).__name__))
        groups = [list(group) for _, group in groupby(order, key=lambda number: apart and lengths[number])]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]
