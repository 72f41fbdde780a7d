"""How many rows make a step, and how many steps a run."""

import math

from llmft.schema.config import Config
from llmft.training.features import FeatureSet

AT_ONCE = 8192  # tokens, or rows of a table, that `trainer.batch_size=all` computes at a time


def rows_of_step(config: Config, rows: int) -> int:
    """Rows of one optimizer step, over all processes and accumulated batches, of a training split of `rows`."""
    trainer = config.trainer
    if trainer.batch_size == "all":
        return rows
    return config.hardware.processes * trainer.batch_size * trainer.accumulation


def steps_of_epoch(config: Config, rows: int) -> int:
    """Steps of a pass over `rows`."""
    return math.ceil(rows / rows_of_step(config, rows))


def steps_of_run(config: Config, rows: int) -> int:
    """Steps that the run is planned to take; early stopping may end it before."""
    return config.trainer.max_steps or math.ceil(steps_of_epoch(config, rows) * config.trainer.epochs)


def in_numbers(config: Config, rows: int, features: FeatureSet) -> Config:
    """The configuration with `trainer.batch_size=all` as a number of rows, and so many accumulated that all are a step.

    Args:
        features: those of the training rows, or of a sample of them, for the longest.
    """
    trainer = config.trainer
    if trainer.batch_size != "all":
        return config
    own = math.ceil(rows / config.hardware.processes)
    batches = math.ceil(own * max(features.lengths or [1]) / AT_ONCE)
    batch = math.ceil(own / min(batches, own))  # of like sizes, since each counts the same in the mean of a step
    whole = trainer.model_copy(update={"batch_size": batch, "accumulation": math.ceil(own / batch)})
    return config.model_copy(update={"trainer": whole})
