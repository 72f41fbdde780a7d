"""What a trained model is worth: beside a simple model fitted to the same rows, and without each of its columns.

Neither touches the model or a random state.
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

BASELINE_ROWS = 50_000  # training rows up to which a baseline is fitted unasked: some seconds
ROWS = 1000  # of the split whose columns are compared, drawn with a seed of their own
ANSWERS = 15_000  # rows that are answered in all: half a second with a network, two or three with 400 trees
COLUMNS = 300  # more are not looked at: with so few answers for each, chance would say as much as the column


@dataclass(frozen=True)
class Baseline:
    """A simple model that was fitted to the training rows of a run."""

    name: str
    scores: dict[str, dict[str, float]]
    """By split, the metrics that are one number."""
    seconds: float


def wants_baseline(config: Config, model: torch.nn.Module, rows: int, first: bool) -> bool:
    """Whether a run has a baseline: by `task.baseline`; where that is unset, if it costs little and tells something.

    Args:
        model: a fitted model is not compared with trees, which it may be itself.
        rows: of train.
        first: whether the run is the first of a sweep or search with these rows.
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
    """Fit and score the baseline of a task, or None where none is wanted: see `wants_baseline`.

    What is decided on validation rows, such as thresholds, is decided for it as for the model. No random state is
    touched. Whatever goes wrong is printed as a note: the model is trained, and its run is not to fail by this.
    """
    if not isinstance(task, HasBaseline) or not wants_baseline(config, model, len(splits["train"]), first):
        return None
    start = time.perf_counter()
    rows = {name: split.rows for name, split in splits.items()}
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")  # that a solver has stopped early, of which nobody could make anything
            name, outputs = task.baseline(rows, config.seed)
        if isinstance(task, Calibrates) and task.calibrates and "validation" in rows:
            task = task.calibrate(outputs["validation"], rows["validation"])
        scores = {
            split: task.score(task.decode(found, list(range(len(found)))), rows[split])
            for split, found in outputs.items()
        }
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        phase("note", f"no baseline beside the model, it could not be fitted: {why}")
        return None
    plain = {split: {key: v for key, v in found.items() if isinstance(v, float)} for split, found in scores.items()}
    return Baseline(name, plain, time.perf_counter() - start)


def wants_importance(config: Config, first: bool) -> bool:
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
    """Permutation importance (Breiman 2001): what `metric` loses by each column, the most first.

    Nothing where there is no such score, or too many columns.

    The cells of a column are exchanged among up to ROWS rows of the split; the mean of one to five such draws is taken.
    Columns that say the same stand in for each other, so that each of them may seem to matter little.
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
    """Features in which each row has some of its numbers from another row; `parts`: which, by key."""
    for key, columns in parts.items():
        values = numpy.array(table[key].to_pylist())  # (rows, width)
        values[:, columns] = values[order][:, columns]
        table = table.set_column(table.column_names.index(key), key, pyarrow.array(values.tolist()))
    return table
