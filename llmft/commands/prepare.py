"""From a configuration to data that are ready to train on; no weights are loaded."""

from dataclasses import dataclass, replace
from typing import Any

from llmft import tasks
from llmft.commands.session import check_labels
from llmft.data.load import Data, load
from llmft.schema.config import Config
from llmft.tasks.task import Task
from llmft.training.evaluation import Split
from llmft.training.features import encode


@dataclass(frozen=True)
class Prepared:
    """The rows of a run, what its task learnt of them, and their features."""

    task: Task[Any]
    state: Any
    data: Data
    splits: dict[str, Split]


def prepare(config: Config) -> Prepared:
    """Read, check, split and encode the rows of a run.

    Raises:
        UserError: with what is wrong with the data.
    """
    task = tasks.build(config.task)
    data = load(config.dataset, task)
    state = task.fit(data["train"], config.model)
    check_labels(task, state, data)
    splits = {name: Split(rows, encode(task, state, rows)) for name, rows in data.splits.items()}
    if data.stream is not None:
        splits["train"] = replace(splits["train"], stream=data.stream)
    return Prepared(task, state, data, splits)
