"""What the first weights say of each row, computed once before training, for a loss that compares with it."""

from dataclasses import replace
from itertools import chain
from typing import Any

import pyarrow
import torch

from llmft.schema.config import Config
from llmft.tasks.task import Task
from llmft.training import processes
from llmft.training.evaluation import Split
from llmft.training.hardware import Hardware
from llmft.training.memory import advice_for_scoring, enough_memory
from llmft.training.prediction import batches, float32

REFERENCE = "reference"
"""The key of a feature that holds it."""


def with_reference(
    config: Config, task: Task[Any], model: torch.nn.Module, splits: dict[str, Split], hardware: Hardware
) -> dict[str, Split]:
    """The splits, those that training reads with `Task.first_answers` in their features.

    In the numbers that each is read in later: validation in float32, train as it is trained. So at first all loss is
    the same, and none of it rounding. Several processes share the batches, and each gets all answers.
    """
    if not config.task.refers:
        return splits
    found = dict(splits)
    model.to(hardware.device)
    for name in ("train", "validation"):
        if name not in splits:
            continue
        features = splits[name].features
        size, bf16 = config.trainer.eval_batch_size, hardware.precision == "bf16" and name == "train"
        with (
            enough_memory(lambda: advice_for_scoring(config)),
            float32(model),
            torch.autocast(hardware.device, torch.bfloat16, bf16),
        ):
            own = [
                (numbers, task.reference_scores(model, batch))
                for numbers, batch in batches(task, features, size, model)
            ]
        values = [0.0] * len(features)
        for numbers, answers in chain.from_iterable(processes.gather(own)):
            for number, answer in zip(numbers, answers, strict=True):
                values[number] = answer
        column = pyarrow.array(values, pyarrow.float32())
        found[name] = replace(splits[name], features=features.with_column(REFERENCE, column))
    return found
