"""What the commands share before the work starts."""

import logging
import warnings
from typing import Any

import datasets
import transformers

from llmft.data.load import Data
from llmft.schema.problem import UserError
from llmft.tasks.task import Task


def quiet() -> None:
    """Let the libraries speak only of errors: what a user needs to know, llmft says itself, once."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    # A pinned-memory hint of torch's DataLoader and the like: nothing that a user could act on.
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")


def check_labels(task: Task[Any], state: Any, data: Data) -> None:
    """Raise UserError for rows that the fitted task can't express, over all splits."""
    problems = [problem for name, rows in data.splits.items() for problem in task.check(rows, state, name)]
    if problems:
        raise UserError(problems, "the data")
