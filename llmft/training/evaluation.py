"""A split with its features, and its scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from datasets import Dataset

from llmft.data.stream import Stream
from llmft.reporting.phases import counting
from llmft.runs.folder import Run
from llmft.schema.problem import plural
from llmft.tasks.task import Answer, Task
from llmft.training import processes
from llmft.training.prediction import Prediction, batches, float32, predict

KEPT = 100  # scores of a row that predictions/SPLIT.jsonl holds


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


def evaluate(
    task: Task[Any],
    model: torch.nn.Module,
    split: Split,
    batch_size: int,
    seen: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], Prediction]:
    """The metrics of a split, `loss` among them, and the answers that they are of; for `seen` see `predict`."""
    prediction = predict(task, model, split.features, batch_size, seen)
    loss = {} if prediction.loss is None else task.metrics_from_loss(prediction.loss)
    return loss | task.score(prediction.answers, split.rows), prediction


def loss_of(task: Task[Any], model: torch.nn.Module, split: Split, batch_size: int) -> dict[str, Any]:
    """The loss of a split alone, without answers; see `TaskConfig.generates`."""
    with float32(model):
        own = [
            (task.loss(model, batch).item(), task.loss_weight(batch))
            for _, batch in batches(task, split.features, batch_size, model)
        ]
    found = list(chain.from_iterable(processes.gather(own)))
    return task.metrics_from_loss(sum(loss * count for loss, count in found) / sum(count for _, count in found))


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


def score(
    task: Task[Any], model: torch.nn.Module, name: str, split: Split, batch_size: int, run: Run
) -> dict[str, Any]:
    """Evaluate a split, keep its answers in RUN/predictions/NAME.jsonl, and return its metrics."""
    what = (
        f"{name} rows"
        if len(split.features) == len(split.rows)
        else f"windows of {plural(len(split.rows), f'{name} rows')}"
    )
    with counting("scoring", len(split.features), what) as seen:
        metrics, prediction = evaluate(task, model, split, batch_size, seen)
    keep(task, name, split.rows, prediction.answers, run)
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
