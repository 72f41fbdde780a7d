"""How many examples make a step, and how many steps a run."""

import math

from llmft.schema.config import Config
from llmft.training.features import FeatureSet

AT_ONCE = 8192  # tokens, or rows of a table, that `trainer.batch_size=all` computes at a time


def rows_of_step(config: Config, examples: int) -> int:
    """Rows of one optimizer step, over all processes and accumulated batches, of a training split of `examples`."""
    trainer = config.trainer
    if trainer.batch_size == "all":
        return examples
    return config.hardware.processes * trainer.batch_size * trainer.accumulation


def steps_of_epoch(config: Config, examples: int) -> int:
    """Steps of a pass over `examples`."""
    return math.ceil(examples / rows_of_step(config, examples))


def steps_of_run(config: Config, examples: int) -> int:
    """Steps that the run is planned to take; early stopping may end it before."""
    return config.trainer.max_steps or math.ceil(steps_of_epoch(config, examples) * config.trainer.epochs)


def in_numbers(config: Config, features: FeatureSet) -> Config:
    """The configuration with `trainer.batch_size=all` as a number, accumulated until all rows are a step."""
    trainer = config.trainer
    if trainer.batch_size != "all":
        return config
    own = math.ceil(len(features) / config.hardware.processes)
    batches = math.ceil(own * max(features.lengths or [int(features.mean_length or 1)]) / AT_ONCE)
    batch = math.ceil(own / min(batches, own))  # of like sizes: none takes much more memory than needed
    whole = trainer.model_copy(update={"batch_size": batch, "accumulation": math.ceil(own / batch)})
    return config.model_copy(update={"trainer": whole})
