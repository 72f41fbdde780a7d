"""A model that is fitted to all rows at once, such as trees, goes the way of one that is trained by gradients."""

import time
from typing import Any

import pyarrow
import torch

from llmft.runs.ending import Interrupting
from llmft.tasks.task import Task
from llmft.training.evaluation import Experiment
from llmft.training.features import FeatureSet


def fits(model: torch.nn.Module) -> bool:
    """Whether a model has a `fit` of its own, and so neither steps nor checkpoints.

    It has `plan()` too, which says in a few words what fitting will do; see llmft.models.boosting.
    """
    return callable(getattr(model, "fit", None))


def fit(experiment: Experiment) -> dict[str, Any]:
    """Fit the model in place to the training rows, and return what it took.

    Validation rows say when to stop, as they pick the best checkpoint of other models. A run that was interrupted
    begins anew: there is nothing to go on from.

    Returns:
        `seconds`, and what the model's own `fit` returns.
    """
    start = time.perf_counter()
    config, task, splits, model = experiment.config, experiment.task, experiment.splits, experiment.model
    rows = {name: whole(task, splits[name].features) for name in ("train", "validation") if name in splits}
    loss = getattr(config.task, "loss", None)
    with Interrupting():
        facts = model.fit(rows["train"], rows.get("validation"), loss, config.seed, experiment.hardware.threads)
    model.to(experiment.hardware.device)
    return {"seconds": time.perf_counter() - start, **facts, "earlier_seconds": 0.0}


def whole(task: Task[Any], features: FeatureSet) -> dict[str, torch.Tensor]:
    """All features in one batch, as the collator makes them, with `weights` where not all of them count alike."""
    batch = {name: _tensor(features.table[name]) for name in features.table.column_names}
    weights = None if task.target is None else task.target.row_weights(batch["labels"].numpy())
    return batch if weights is None else batch | {"weights": torch.from_numpy(weights)}


def _tensor(column: pyarrow.ChunkedArray) -> torch.Tensor:
    """A column of numbers, or of lists of as many numbers each. Lists of Python would take seconds."""
    array, shape = column.combine_chunks(), [len(column)]
    while pyarrow.types.is_list(array.type):
        array = array.flatten()
        shape.append(len(array) // max(shape[-1], 1))
    if not len(array):  # no column of this kind: Arrow does not know what they would hold
        return torch.zeros(shape)
    values = torch.tensor(array.to_numpy(zero_copy_only=False)).reshape(shape)
    return values.float() if values.is_floating_point() else values
