"""A simple model beside the trained one, fitted to the same rows: what does not beat it is not worth its time."""

import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from llmft.reporting.phases import phase
from llmft.schema.config import Config
from llmft.tasks.task import Task
from llmft.training.evaluation import Split
from llmft.training.fit import fits

ROWS = 50_000  # training rows up to which a baseline is fitted unasked: some seconds


@dataclass(frozen=True)
class Baseline:
    """A simple model that was fitted to the training rows of a run."""

    name: str
    scores: dict[str, dict[str, float]]
    """By split, the metrics that are one number."""
    seconds: float


def is_wanted(config: Config, model: torch.nn.Module, rows: int, first: bool) -> bool:
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
    cheap = rows <= ROWS and first and config.command == "finetune"
    return cheap and not made_up and not config.dataset.streaming and not fits(model)


def baseline(
    config: Config, task: Task[Any], model: torch.nn.Module, splits: dict[str, Split], first: bool
) -> Baseline | None:
    """Fit and score the baseline of a task, or None where none is wanted: see `is_wanted`.

    What is decided on validation rows, such as thresholds, is decided for it as for the model. No random state is
    touched. Whatever goes wrong is printed as a note: the model is trained, and its run is not to fail by this.
    """
    if not is_wanted(config, model, len(splits["train"]), first):
        return None
    start = time.perf_counter()
    rows = {name: split.rows for name, split in splits.items()}
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")  # that a solver has stopped early, of which nobody could make anything
            name, outputs = task.baseline(rows, config.seed)
        if task.calibrates and "validation" in rows:
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
