"""What the commands share before the work starts."""

import inspect
import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import torch
import transformers

from llmft.data.corpus import load_corpus
from llmft.data.pipeline import Data, load
from llmft.models import adapters
from llmft.models.trained import Exported
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.task import Task
from llmft.training.evaluation import Split


def quiet() -> None:
    """Let the libraries speak only of errors: what a user needs to know, llmft says itself, once."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    # A pinned-memory hint of torch's DataLoader and the like: nothing that a user could act on.
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    # transformers has given it a new name, which peft and older versions of transformers do not know.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)


def read(dataset: DatasetConfig, task: Task[Any], splits: tuple[str, ...]) -> Data:
    """The rows of some splits, checked; files of a corpus go once they are mapped into memory.

    Raises:
        UserError: with every problem of the data.
    """
    if not task.corpus:
        try:
            return load(dataset, task, splits)
        except UserError as error:
            raise UserError([_without_labels(problem, task) for problem in error.problems], error.subject) from error
    with TemporaryDirectory(prefix="llmft-", ignore_cleanup_errors=True) as folder:
        return load_corpus(dataset, task, Path(folder), splits)


def _without_labels(problem: Problem, task: Task[Any]) -> Problem:
    """The problem; where it is a column of labels that is not there, with the command that does without."""
    labels = {f"dataset.columns.{role}" for role, spec in task.columns.items() if not spec.is_input}
    if problem.key not in labels or "has no column" not in problem.what:
        return problem
    more = "To answer rows without it: llmft predict RUN predict.input=FILE."
    return problem._replace(hint=f"{problem.hint} {more}".strip())


def check_inputs(task: Task[Any], model: torch.nn.Module, name: str, splits: dict[str, Split]) -> None:
    """Raise UserError for a model that does not take what the task feeds it, such as a table to a BERT."""
    batch = task.objective.collate([next(iter(splits.values())).features[0]])
    forward = adapters.unwrap(model).forward
    taken = model.takes if isinstance(model, Exported) else inspect.signature(forward).parameters
    if strange := [key for key in batch if key not in taken and key not in task.objective.own_keys]:
        what = f"{name} ({type(model).__name__}) does not take {', '.join(strange)}"
        raise UserError(Problem("model", what, hint=f"Choose a model for {task.config.model_fields['name'].default}."))


def check_labels(task: Task[Any], data: Data) -> None:
    """Raise UserError for rows that the fitted task cannot express, over all splits."""
    problems = [problem for name, rows in data.splits.items() for problem in task.check(rows, name)]
    for rows in data.stream or ():
        if problems:
            break  # these are enough; the rest of a stream may take minutes
        problems += task.check(rows, "train")
    if problems:
        raise UserError(problems, "the data")
