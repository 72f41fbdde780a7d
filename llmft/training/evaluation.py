"""Answers of a model to the rows of a split, and their scores: in float32, batch by batch.

Training's evaluation, the final scores and `llmft eval` all go through here, so that they cannot disagree.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from typing import Any

import torch
from datasets import Dataset

from llmft.data.stream import Stream
from llmft.models.adapters import unwrap
from llmft.models.weights import is_sharded
from llmft.reporting.lines import counting
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.problem import plural
from llmft.tasks.task import Answer, Task
from llmft.training import processes
from llmft.training.features import FeatureSet
from llmft.training.hardware import Hardware

KEPT = 100  # scores of a row that predictions/SPLIT.jsonl holds

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
            own.append((numbers, *task.objective.predict(model, batch), task.objective.loss_weight(batch)))
            if seen:
                seen(len(numbers) * processes.world_size())
        most = math.ceil(len(_shared(features, batch_size, model)) / processes.world_size())  # batches of rank 0
        if is_sharded(model) and len(own) < most:
            # One batch less than others have: its answers are left out, but all must gather the weights as often.
            task.objective.predict(model, next(batches(task, features, batch_size, model, first=True))[1])
    outputs: list[Any] = [None] * len(features)
    total, weighed = 0.0, 0
    for numbers, found, loss, count in chain.from_iterable(processes.all_gather(own)):
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
    collate = task.objective.collate
    all_batches = _shared(features, size, model)
    for numbers in all_batches[0 if first else processes.rank() :: processes.world_size()]:
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
        plain = unwrap(getattr(model, "module", model))
        apart = not PADDING_MATTERS.isdisjoint((plain.config.model_type, type(plain).__name__))
        groups = [list(group) for _, group in groupby(order, key=lambda number: apart and lengths[number])]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


@dataclass(frozen=True)
class Split:
    """The rows of a split and their features; of a streamed one, those of a sample."""

    rows: Dataset
    features: Any
    """A FeatureSet; of raw text that is trained on, Blocks."""
    stream: Stream | None = None
    """All rows, where they are streamed."""

    def __len__(self) -> int:
        return len(self.rows) if self.stream is None else len(self.stream)

    @property
    def examples(self) -> int:
        """What an epoch trains on: features, or streamed rows."""
        return len(self.features) if self.stream is None else len(self.stream)


@dataclass
class Experiment:
    """What a run works with. commands/session.py fills it in, step by step; training and console lines read it."""

    config: Config
    hardware: Hardware = field(init=False)
    task: Task[Any] = field(init=False)
    """Fitted to the training rows."""
    splits: dict[str, Split] = field(init=False)
    model: Any = field(init=False)
    """What is trained or scored, in its adapter if it has one."""
    run: Run = field(init=False)
    known_batch_size: int | None = field(init=False, default=None)
    """The largest batch that fits into memory, where another run with this model and these rows has found it."""


def evaluate(
    task: Task[Any],
    model: torch.nn.Module,
    split: Split,
    batch_size: int,
    seen: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], Prediction]:
    """The metrics of a split, `loss` among them, and the answers that they are of; `seen` is as for `predict`."""
    prediction = predict(task, model, split.features, batch_size, seen)
    return metrics_of(task, split, prediction), prediction


def metrics_of(task: Task[Any], split: Split, prediction: Prediction) -> dict[str, Any]:
    """The metrics of answers to a split, `loss` among them where there are labels."""
    loss = {} if prediction.loss is None else task.objective.metrics_from_loss(prediction.loss)
    return loss | task.score(prediction.answers, split.rows)


def loss_of(task: Task[Any], model: torch.nn.Module, split: Split, batch_size: int) -> dict[str, Any]:
    """The loss of a split alone, without answers; see `TaskConfig.generates`."""
    with float32(model):
        own = [
            (task.objective.loss(model, batch).item(), task.objective.loss_weight(batch))
            for _, batch in batches(task, split.features, batch_size, model)
        ]
    found = list(chain.from_iterable(processes.all_gather(own)))
    return task.objective.metrics_from_loss(
        sum(loss * count for loss, count in found) / sum(count for _, count in found)
    )


def ties_with_less_loss(scores: Mapping[str, float], best: Mapping[str, float], metric: str) -> bool:
    """Whether an evaluation replaces the best one so far, whose `metric` it has reached exactly.

    The smaller loss wins, and of equal losses, or where a task has none, the later step. Names begin with `eval_`.
    """
    metric = f"eval_{metric}"
    if metric not in best or scores[metric] != best[metric]:
        return False
    return scores.get("eval_loss", 0.0) <= best.get("eval_loss", 0.0)


def _highest(scores: dict[str, float]) -> dict[str, float]:
    """The KEPT highest scores, in their order: of 1,000 labels a file of all would be 30 kB a row."""
    if len(scores) <= KEPT:
        return scores
    least = sorted(scores.values(), reverse=True)[KEPT - 1]
    return {name: value for name, value in scores.items() if value >= least}


def score(experiment: Experiment, name: str, answered: Prediction | None = None) -> dict[str, Any]:
    """Evaluate a split, keep its answers in RUN/predictions/NAME.jsonl, and return its metrics.

    Args:
        answered: what the model put out for these rows before. It is decoded anew: the task may be calibrated since.
    """
    task, split = experiment.task, experiment.splits[name]
    what = (
        f"{name} rows"
        if len(split.features) == len(split.rows)
        else f"windows of {plural(len(split.rows), f'{name} rows')}"
    )
    with counting("scoring", len(split.features), what) as seen:
        if answered is None:
            size = experiment.config.trainer.eval_batch_size
            metrics, prediction = evaluate(task, experiment.model, split, size, seen)
        else:
            prediction = replace(answered, answers=task.decode(answered.outputs, split.features.rows))
            metrics = metrics_of(task, split, prediction)
    keep(task, name, split.rows, prediction.answers, experiment.run)
    return metrics


def keep(task: Task[Any], name: str, rows: Dataset, answers: list[Answer], run: Run) -> None:
    """Write the answers to a split to RUN/predictions/NAME.jsonl."""
    run.write_predictions(
        name,
        (
            {"id": row["id"], "input": task.format_input(row), "answer": answer["answer"], "label": task.reference(row)}
            | {key: _highest(value) if key == "scores" else value for key, value in answer.items() if key != "answer"}
            for row, answer in zip(rows, answers, strict=True)
        ),
    )
