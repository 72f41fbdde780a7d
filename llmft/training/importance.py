"""Permutation importance (Breiman 2001): how much worse a model answers once the cells of a column change places."""

from dataclasses import replace
from statistics import mean
from typing import Any

import numpy
import pyarrow
import torch

from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.tasks.task import Task
from llmft.training.evaluation import Split, evaluate
from llmft.training.features import FeatureSet

ROWS = 1000  # of the split, drawn with a seed of their own
ANSWERS = 15_000  # rows that are answered in all: half a second with a network, two or three with 400 trees
COLUMNS = 300  # more are not looked at: with so few answers for each, chance would say as much as the column


def is_wanted(config: Config, first: bool) -> bool:
    """Whether the columns of a run are compared: by `task.importance`, or, where it is unset, if rows are real.

    Args:
        first: whether the run is the first of a sweep or search with these rows.
    """
    asked: bool | None = getattr(config.task, "importance", False)
    if asked is not None:
        return asked
    made_up = config.smoke or config.dataset.format == "synthetic"
    return first and not made_up and config.hardware.processes == 1


def importance(task: Task[Any], model: torch.nn.Module, split: Split, metric: str, batch_size: int) -> dict[str, float]:
    """What `metric` loses by each column, the most first; nothing where there is no such score, or too many columns.

    The cells of a column are exchanged among up to ROWS rows of the split; the mean of one to five such draws is taken.
    Columns that say the same stand in for each other, so that each of them may seem to matter little.
    """
    places = task.input_positions()
    if not places or len(places) > COLUMNS:
        return {}
    rng = numpy.random.default_rng(0)
    count = min(len(split), ROWS, ANSWERS // len(places))
    rows = sorted(rng.choice(len(split), count, replace=False).tolist())
    table = split.features.table.take(rows)
    sample = Split(split.rows.select(rows), FeatureSet(table, list(range(count)), None, 0))
    draws = min(5, max(1, ANSWERS // (count * len(places))))
    whole = evaluate(task, model, sample, batch_size)[0].get(metric)
    if not isinstance(whole, float):
        return {}
    found = {}
    for name, parts in places.items():
        losses = []
        for _ in range(draws):
            features = replace(sample.features, table=_exchanged(table, parts, rng.permutation(count)))
            score = evaluate(task, model, replace(sample, features=features), batch_size)[0][metric]
            losses.append(whole - score if METRICS[metric] else score - whole)
        found[name] = mean(losses)
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _exchanged(table: pyarrow.Table, parts: dict[str, list[int]], order: numpy.ndarray) -> pyarrow.Table:
    """Features in which each row has some of its numbers from another row; `parts`: which, by key."""
    for key, columns in parts.items():
        values = numpy.array(table[key].to_pylist())  # (rows, width)
        values[:, columns] = values[order][:, columns]
        table = table.set_column(table.column_names.index(key), key, pyarrow.array(values.tolist()))
    return table
