"""Puts a trained model into perspective: a baseline fitted to the same rows, and the importance of each column.

Neither changes the model or a random state.
"""

import time
import warnings
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import numpy
import pyarrow
import torch

from llmft.reporting.lines import phase
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.tasks.optional import Calibrates, HasBaseline, HasInputColumns
from llmft.tasks.task import Task
from llmft.training.evaluation import Split, evaluate
from llmft.training.features import FeatureSet
from llmft.training.fit import fits

BASELINE_ROWS = 50_000  # training rows up to which a baseline is fitted by default, which takes some seconds
ROWS = 1000  # maximum rows for importance, drawn with a fixed seed
ANSWERS = 15_000  # maximum predictions for importance: 0.5 s with a network, 2 to 3 s with 400 trees
COLUMNS = 300  # with more columns, each would get so few predictions that importance is noise


@dataclass(frozen=True)
class Baseline:
    """The name and metrics of a simple model fitted to the training rows of a run."""

    name: str
    scores: dict[str, dict[str, float]]
    """The numeric metrics, by split."""
    seconds: float


def wants_baseline(config: Config, model: torch.nn.Module, rows: int, first: bool) -> bool:
    """Whether a run has a baseline: `task.baseline`, or if that is unset, whether it is cheap and informative.

    Args:
        model: a fitted model gets no baseline of trees, since it may be the same.
        rows: number of training rows.
        first: whether the run is the first with these rows in a sweep or search.
    """
    asked: bool | None = getattr(config.task, "baseline", False)
    if asked is not None:
        return asked
    made_up = config.smoke or config.dataset.format == "synthetic"
    cheap = rows <= BASELINE_ROWS and first and config.command == "finetune"
    return cheap and not made_up and not config.dataset.streaming and not fits(model)


def baseline(
    config: Config, task: Task[Any], model: torch.nn.Module, splits: dict[str, Split], first: bool
) -> Baseline | None:
    """Fit and evaluate the baseline of a task; None without one, see `wants_baseline`.

    It is calibrated on validation rows like the model. Errors become a note: the model is trained, and its run must not
    fail because of a baseline.
    """
    if not isinstance(task, HasBaseline) or not wants_baseline(config, model, len(splits["train"]), first):
        return None
    start = time.perf_counter()
    rows = {name: split.rows for name, split in splits.items()}
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")  # about solvers that stopped early, which a user can do nothing about
            name, outputs = task.baseline(rows, config.seed)
        if isinstance(task, Calibrates) and task.calibrates and "validation" in rows:
            task = task.calibrate(outputs["validation"], rows["validation"])
        scores = {
            split: task.score(task.decode(found, list(range(len(found)))), rows[split])
            for split, found in outputs.items()
        }
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        phase("note", f"there is no baseline, it could not be fitted: {why}")
        return None
    plain = {split: {key: v for key, v in found.items() if isinstance(v, float)} for split, found in scores.items()}
    return Baseline(name, plain, time.perf_counter() - start)


def wants_importance(config: Config, first: bool) -> bool:
    """Whether a run computes importance: `task.importance`, or if that is unset, whether its rows are real.

    Args:
        first: whether the run is the first with these rows in a sweep or search.
    """
    asked: bool | None = getattr(config.task, "importance", False)
    if asked is not None:
        return asked
    made_up = config.smoke or config.dataset.format == "synthetic"
    return first and not made_up and config.hardware.processes == 1


def importance(task: Task[Any], model: torch.nn.Module, split: Split, metric: str, batch_size: int) -> dict[str, float]:
    """Permutation importance (Breiman 2001): by how much `metric` becomes worse without each column, the most first.

    The cells of a column are permuted among up to ROWS rows of the split; the result is the mean of one to five
    permutations. Columns with the same information replace each other, so each of them may seem unimportant.

    Returns:
        the loss of the metric by column; empty if these rows do not have the metric, or for too many columns.
    """
    places = task.input_positions() if isinstance(task, HasInputColumns) else {}
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
    """Features with some numbers permuted among rows.

    Args:
        parts: which numbers, as positions by key.
        order: (rows,), the row from which each row gets them.
    """
    for key, columns in parts.items():
        values = numpy.array(table[key].to_pylist())  # (rows, width)
        values[:, columns] = values[order][:, columns]
        table = table.set_column(table.column_names.index(key), key, pyarrow.array(values.tolist()))
    return table
