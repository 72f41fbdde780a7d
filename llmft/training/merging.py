"""The adapter at the end of training: saves it, merges it, and compares the merged model with the adapted one."""

from typing import Any

import numpy
import torch

from llmft.models import adapters
from llmft.schema.problem import Failure
from llmft.tasks.task import Task
from llmft.training.evaluation import Experiment, Split, float32

ROWS = 64  # rows to compare: an error in merging shows in any of them, and more would only take longer
LIMIT = 1e-4  # of max|a - b| / max|a|: float32 rounding gives 1e-7 per layer, a layer that was left out 1e-2


def keep_and_merge(experiment: Experiment) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Save the adapter to RUN/adapter, then merge it into the model.

    Returns:
        the merged model, and facts for metrics.json: `merged_rows`, the number compared; `merged_difference`, which is
        max|a - b| / max|a| of the outputs; and `merged_equal_answers`, a share. Tasks that generate compare the losses
        of rows and no answers, since different weights may write the same text. A prefix cannot be merged, and has no
        facts.

    Raises:
        Failure: if the merged model gives other outputs.
    """
    config, task, model, run = experiment.config, experiment.task, experiment.model, experiment.run
    if run.writes:
        adapters.save_adapter(model, run.folder / "adapter")
    if config.adapter.name == "prefix":
        return adapters.merge(model), {}
    split = experiment.splits.get("validation", experiment.splits["train"])
    compared = _losses if config.task.generates else _outputs
    before, answers = compared(task, adapters.trained_part(model), split)
    merged = adapters.merge(model)
    after, same = compared(task, merged, split)
    difference = relative(before, after)
    pairs = [(a["answer"], b["answer"]) for a, b in zip(answers, same, strict=True)]
    # Numbers are never exactly equal. How far apart they are is in the difference of the outputs.
    equal = sum(a == b or isinstance(a, float) for a, b in pairs) / len(pairs) if pairs else 1.0
    if not difference <= LIMIT or equal < 1:
        kept = f"The adapter is kept in {run.folder / 'adapter'}"
        how = f"outputs differ by {difference:.1e} of their size, {LIMIT:.0e} may be, {equal:.1%} of answers are equal"
        raise Failure(f"the merged model answers differently from the trained one: {how}. {kept}")
    facts = {"merged_rows": min(ROWS, len(split.features)), "merged_difference": difference}
    return merged, facts | ({"merged_equal_answers": equal} if pairs else {})


def relative(before: numpy.ndarray, after: numpy.ndarray) -> float:
    """max|a - b| / max|a|; 0 for equal arrays; NaN, which is below no limit, if an output is NaN."""
    if numpy.array_equal(before, after):
        return 0.0
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return float(numpy.abs(before - after).max() / numpy.abs(before).max())


def _losses(task: Task[Any], model: torch.nn.Module, split: Split) -> tuple[numpy.ndarray, list[Any]]:
    """The losses of the first rows of a split, (rows,) in float32, and no answers."""
    collate, device = task.objective.collate, next(model.parameters()).device
    found = []
    with float32(model):
        for number in range(min(ROWS, len(split.features))):
            # One row per batch: a mean over all rows would hide an error in a single one.
            batch = collate(split.features.__getitems__([number]))
            found.append(task.objective.loss(model, {key: value.to(device) for key, value in batch.items()}).item())
    return numpy.array(found), []


def _outputs(task: Task[Any], model: torch.nn.Module, split: Split) -> tuple[numpy.ndarray, list[Any]]:
    """The outputs of the first rows of a split in float32, as one flat array, and their answers."""
    numbers = range(min(ROWS, len(split.features)))
    device = next(model.parameters()).device
    batch = task.objective.collate(split.features.__getitems__(list(numbers)))
    with float32(model):
        outputs, _ = task.objective.predict(model, {key: value.to(device) for key, value in batch.items()})
    decoded = split.features.with_asides(list(outputs), numbers)
    answers = task.decode(decoded, [split.features.rows[number] for number in numbers])
    # A row with its loss also has its number of tokens. That is equal in both, and as the largest value would hide the
    # difference.
    numbers_of = (output["loss"] if isinstance(output, dict) else output for output in outputs)
    return numpy.concatenate([numpy.ravel(output) for output in numbers_of]), answers
