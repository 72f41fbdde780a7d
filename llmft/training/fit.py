"""Fits a model that needs no Trainer, in place of `train`: without gradients, such as trees, or by its own steps."""

import time
from typing import Any

import pyarrow
import torch

from llmft.runs.ending import Interrupting
from llmft.tasks.task import Task
from llmft.training.epochs import by_epochs, train_epochs
from llmft.training.evaluation import Experiment
from llmft.training.features import FeatureSet


def fits(model: torch.nn.Module) -> bool:
    """Whether a model has its own `fit`, and so no steps and no checkpoints, or its own steps, see epochs.py.

    Such a model also has `plan()`, a line on what fitting will do; see llmft.models.boosting.
    """
    return callable(getattr(model, "fit", None)) or by_epochs(model)


def fit(experiment: Experiment) -> dict[str, Any]:
    """Fit the model of an experiment in place to its training rows.

    Validation rows decide when to stop, as they choose the best checkpoint of other models. An interrupted run starts
    again, since there are no checkpoints.

    Returns:
        `seconds`, and what the model's own `fit` returns.
    """
    start = time.perf_counter()
    config, task, splits, model = experiment.config, experiment.task, experiment.splits, experiment.model
    if by_epochs(model):
        return {**train_epochs(experiment, whole(task, splits["train"].features)), "earlier_seconds": 0.0}
    rows = {
        name: whole(task, splits[name].features)
        for name in ("train", "validation")
        if name in splits and (name == "train" or task.target)
    }
    loss = getattr(config.task, "loss", None)
    with Interrupting():
        facts = model.fit(rows["train"], rows.get("validation"), loss, config.seed, experiment.hardware.threads)
    model.to(experiment.hardware.device)
    return {"seconds": time.perf_counter() - start, **facts, "earlier_seconds": 0.0}


def whole(task: Task[Any], features: FeatureSet) -> dict[str, torch.Tensor]:
    """All features as one batch: as the objective gathers them, or as the collator would make it, with `weights` if
    class weights differ."""
    if callable(gather := getattr(task.objective, "gather", None)):
        gathered: dict[str, torch.Tensor] = gather(features.table)
        return gathered
    batch = {name: _tensor(features.table[name]) for name in features.table.column_names}
    weights = None if task.target is None else task.target.row_weights(batch["labels"].numpy())
    return batch if weights is None else batch | {"weights": torch.from_numpy(weights)}


def _tensor(column: pyarrow.ChunkedArray) -> torch.Tensor:
    """A column of numbers, or of lists of equal length, as a tensor. Python lists would take seconds."""
    array, shape = column.combine_chunks(), [len(column)]
    while pyarrow.types.is_list(array.type) or pyarrow.types.is_fixed_size_list(array.type):
        array = array.flatten()
        shape.append(len(array) // max(shape[-1], 1))
    if not len(array):  # a table without columns of this kind: Arrow has no type for them
        return torch.zeros(shape)
    values = torch.tensor(array.to_numpy(zero_copy_only=False)).reshape(shape)
    return values.float() if values.is_floating_point() else values
