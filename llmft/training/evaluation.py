"""Answers of a model to the rows of a split, and their scores: in float32, batch by batch.

Training's evaluation, the final scores and `llmft eval` all go through here, so that they cannot disagree.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from llmft.tasks.optional import EmbedsCorpus
from llmft.tasks.task import Answer, Task
from llmft.training import processes
from llmft.training.features import FeatureSet, encode
from llmft.training.hardware import Hardware

KEPT = 100  # scores of a row that predictions/SPLIT.jsonl holds

# Models whose answers depend on padding in spite of the attention mask, by architecture or class: Fourier transforms
# (fnet) and convolutions over neighbors (convbert, canine), tokens that are pooled or sampled (funnel, nystromformer,
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
    """The answers of a model to the rows of a split."""

    answers: list[Answer]
    """One for each row."""
    outputs: list[Any]
    """The model's output for each feature, with its aside if there is one: what the answers were decoded from."""
    loss: float | None
    """The mean loss, weighted by `Objective.loss_weight`; None if nothing has a label."""


@contextmanager
def float32(model: torch.nn.Module) -> Iterator[None]:
    """Inside the context, the model computes in float32, in eval mode, and without gradients.

    accelerate puts autocast into `model.forward`, on the instance. In bfloat16 scores move by 2.3e-3, so it is removed
    here and restored afterwards.
    """
    autocast = model.__dict__.pop("forward", None)
    was_training = model.training
    model.eval()
    # FSDP gathers weights during the forward pass. Gathered in inference mode, they could not be trained afterwards.
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
    """Answer every row of a split, in row order. Features of similar length share a batch, so there is little padding.

    Several processes share the batches, and all get every answer.

    Args:
        seen: called after each batch with its number of features over all processes.
    """
    outputs, losses = _outputs(task, model, features, batch_size, seen)
    task = with_corpus_vectors(task, model, batch_size)
    return Prediction(task.decode(outputs, features.rows), outputs, weighted_mean(losses))


def with_corpus_vectors(task: Task[Any], model: torch.nn.Module, batch_size: int) -> Task[Any]:
    """The task with the outputs of these weights for its corpus, if it lacks them; else the task itself."""
    if not isinstance(task, EmbedsCorpus) or (passages := task.passages_to_embed()) is None:
        return task
    asked = task.for_inference()
    outputs, _ = _outputs(asked, model, encode(asked, passages), batch_size)
    embedded: Task[Any] = task.with_vectors(outputs)
    return embedded


def _outputs(
    task: Task[Any],
    model: torch.nn.Module,
    features: FeatureSet,
    batch_size: int,
    seen: Callable[[int], None] | None = None,
) -> tuple[list[Any], list[tuple[float, int]]]:
    """The output of each feature, with its aside if there is one; and the losses of batches with their weights."""
    own = []
    with float32(model):
        for numbers, batch in batches(task, features, batch_size, model):
            own.append((numbers, *task.objective.predict(model, batch), task.objective.loss_weight(batch)))
            if seen:
                seen(len(numbers) * processes.world_size())
        most = math.ceil(len(_shared(features, batch_size, model)) / processes.world_size())  # batches of rank 0
        if is_sharded(model) and len(own) < most:
            # This process has one batch fewer than others. All must gather the weights equally often, so it repeats
            # a batch, whose answers are dropped.
            task.objective.predict(model, next(batches(task, features, batch_size, model, first=True))[1])
    outputs: list[Any] = [None] * len(features)
    losses: list[tuple[float, int]] = []
    for numbers, found, loss, count in chain.from_iterable(processes.all_gather(own)):
        for number, output in zip(numbers, found, strict=True):
            outputs[number] = output
        if loss is not None:
            losses.append((loss, count))
    return features.with_asides(outputs, range(len(outputs))), losses


def weighted_mean(losses: Sequence[tuple[float, int]]) -> float | None:
    """The mean of losses, each with its `Objective.loss_weight`; None if no word or token of the rows has a label."""
    whole = sum(weight for _, weight in losses)
    return sum(loss * weight for loss, weight in losses) / whole if whole else None


def batches(
    task: Task[Any], features: FeatureSet, size: int, model: torch.nn.Module, first: bool = False
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """The batches of this process: the indices of their features, and the batch on the device of `model`.

    Features of similar length share a batch; the longest come first.

    Args:
        first: yield the batches of rank 0 instead.
    """
    device = next(model.parameters()).device
    collate = task.objective.collate
    all_batches = _shared(features, size, model)
    for numbers in all_batches[0 if first else processes.rank() :: processes.world_size()]:
        yield numbers, {key: value.to(device) for key, value in collate(features.__getitems__(numbers)).items()}


def padding_matters(model: torch.nn.Module) -> bool:
    """Whether the answers of a model depend on padding, see PADDING_MATTERS."""
    plain = unwrap(getattr(model, "module", model))
    return not PADDING_MATTERS.isdisjoint((plain.config.model_type, type(plain).__name__))


def _shared(features: FeatureSet, size: int, model: torch.nn.Module) -> list[list[int]]:
    """The indices of the features in each batch of all processes, the longest first.

    For a model in PADDING_MATTERS, all features of a batch have the same length, so that there is no padding.
    """
    order = list(range(len(features)))
    lengths = features.lengths
    if lengths is None:
        groups = [order]
    else:
        order.sort(key=lambda number: -lengths[number])
        apart = padding_matters(model)
        groups = [list(group) for _, group in groupby(order, key=lambda number: apart and lengths[number])]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


@dataclass(frozen=True)
class Split:
    """The rows of a split and their features; for streamed rows, those of a sample."""

    rows: Dataset
    features: Any
    """A FeatureSet; for raw text in training, Blocks."""
    stream: Stream | None = None
    """All rows, if they are streamed."""

    def __len__(self) -> int:
        return len(self.rows) if self.stream is None else len(self.stream)

    @property
    def examples(self) -> int:
        """The number of features, or of streamed rows, in an epoch."""
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
    """The metrics of a split, with `loss`, and its answers; `seen` as for `predict`."""
    prediction = predict(task, model, split.features, batch_size, seen)
    return metrics_of(task, split, prediction), prediction


def metrics_of(task: Task[Any], split: Split, prediction: Prediction) -> dict[str, Any]:
    """The metrics of the answers to a split, with `loss` if there are labels."""
    return _metrics_from_loss(task, prediction.loss) | task.score(prediction.answers, split.rows)


def loss_of(task: Task[Any], model: torch.nn.Module, split: Split, batch_size: int) -> dict[str, Any]:
    """Only the loss of a split, without answers: generating them may take hours, see `TaskConfig.generates`."""
    with float32(model):
        own = [
            (task.objective.loss(model, batch).item(), task.objective.loss_weight(batch))
            for _, batch in batches(task, split.features, batch_size, model)
        ]
    losses = list(chain.from_iterable(processes.all_gather(own)))
    return _metrics_from_loss(task, weighted_mean(losses))


def _metrics_from_loss(task: Task[Any], loss: float | None) -> dict[str, float]:
    """No metrics where nothing has a label: a loss of 0 would be the best of all."""
    return {} if loss is None else task.objective.metrics_from_loss(loss)


def ties_with_less_loss(scores: Mapping[str, float], best: Mapping[str, float], metric: str) -> bool:
    """Whether an evaluation replaces the best one so far, with which it is exactly equal in `metric`.

    The smaller loss wins; with equal losses, or without any, the later step. Names start with `eval_`.
    """
    metric = f"eval_{metric}"
    if metric not in best or scores[metric] != best[metric]:
        return False
    return scores.get("eval_loss", 0.0) <= best.get("eval_loss", 0.0)


def _highest(scores: dict[str, float]) -> dict[str, float]:
    """The KEPT highest scores, in their order: all scores of 1,000 labels would take 30 kB per row."""
    if len(scores) <= KEPT:
        return scores
    least = sorted(scores.values(), reverse=True)[KEPT - 1]
    return {name: value for name, value in scores.items() if value >= least}


def score(experiment: Experiment, name: str, answered: Prediction | None = None) -> tuple[dict[str, Any], list[Answer]]:
    """Evaluate a split, write its answers to RUN/predictions/NAME.jsonl, and return its metrics and the answers.

    Args:
        answered: an earlier prediction for these rows. It is decoded again, since the task may have been calibrated.
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
    return metrics, prediction.answers


def keep(task: Task[Any], name: str, rows: Dataset, answers: list[Answer], run: Run) -> None:
    """Write the answers to a split to RUN/predictions/NAME.jsonl."""
    left_out = ("answer", *task.only_scored)
    run.write_predictions(
        name,
        (
            {"id": row["id"], "input": task.format_input(row), "answer": answer["answer"], "label": task.reference(row)}
            | {
                key: _highest(value) if key == "scores" else value
                for key, value in answer.items()
                if key not in left_out
            }
            for row, answer in zip(rows, answers, strict=True)
        ),
    )
