"""Parity of an export with its original model on real rows, and the latency of both."""

import random
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch

from llmft.schema.inference import DIFFERENCE
from llmft.schema.metric import METRICS
from llmft.schema.problem import Failure, plural
from llmft.tasks.task import Task
from llmft.training.evaluation import Experiment, evaluate, float32
from llmft.training.features import FeatureSet

ROWS = (1, 2, 3, 5, 8)
"""Batch sizes that are compared, each with rows of another length: a fixed shape in a traced program fails here."""
TIMED = (1, 8)
"""Batch sizes that are timed: a single request, and a small batch."""
CALIBRATED = 60
"""Rows that int8 is calibrated with. With 60 to 200 rows, metrics of the review classifier differ by less than 0.5%."""
ROUNDS, SECONDS = 30, 3.0  # at most: 30 rounds for a stable median, 3 s so that a large model does not take minutes


def by_length(features: FeatureSet) -> list[int]:
    """The indices of all features, the longest first."""
    return sorted(range(len(features)), key=lambda number: -(features.lengths or [0] * len(features))[number])


def batch_at(task: Task[Any], features: FeatureSet, place: float, rows: int) -> dict[str, torch.Tensor]:
    """A batch of `rows` features without labels, from the share `place` of the order by length; 0 is the longest."""
    order = by_length(features)
    # Never beyond the end; with fewer features than rows, they repeat.
    start = min(int(place * len(order)), max(len(order) - rows, 0))
    return batch_of(task, features, [order[(start + i) % len(order)] for i in range(rows)])


def sample(task: Task[Any], features: FeatureSet) -> dict[str, torch.Tensor]:
    """The batch for tracing: the longest and the shortest feature, so that there is padding and more than one row."""
    order = by_length(features)
    return batch_of(task, features, [order[0], order[-1]])


def samples(task: Task[Any], features: FeatureSet) -> list[dict[str, torch.Tensor]]:
    """`sample`, and eight batches of eight features of all lengths, in which int8 looks for outliers."""
    return [sample(task, features), *(batch_at(task, features, place / 8, 8) for place in range(8))]


def singles(task: Task[Any], features: FeatureSet, seed: int) -> list[dict[str, torch.Tensor]]:
    """CALIBRATED features, each by itself: int8 takes the ranges of values from them, which padding must not widen."""
    drawn = random.Random(seed).sample(range(len(features)), min(CALIBRATED, len(features)))
    return [batch_of(task, features, [number]) for number in drawn]


def longest(features: FeatureSet) -> int | None:
    """Tokens of the longest feature; None if features have no lengths."""
    return None if features.lengths is None else max(features.lengths)


def batch_of(task: Task[Any], features: FeatureSet, numbers: list[int]) -> dict[str, torch.Tensor]:
    """The features with these indices as a batch without labels."""
    batch = task.objective.collate(features.__getitems__(numbers))
    return {name: value for name, value in batch.items() if name not in ("labels", *task.objective.own_keys)}


def compare(experiment: Experiment, exported: Any, name: str) -> dict[str, Any]:
    """The section `parity` of export.json: an export compared with the model of an experiment, on its split `name`.

    Returns:
        over all rows, `difference` (see there), and the share `equal_answers`, None for numbers; `shapes`, the
        difference for five shapes of batches; `padding`, the difference that a longer row in the batch makes; and the
        task's `metric` of both models.
    """
    config, task, original, split = experiment.config, experiment.task, experiment.model, experiment.splits[name]
    (before, theirs), (after, ours) = (
        evaluate(task, model, split, config.trainer.eval_batch_size) for model in (original, exported)
    )
    outputs = [bare(found.outputs, split.features) for found in (theirs, ours)]
    answers = [[settled(found["answer"]) for found in each.answers] for each in (theirs, ours)]
    equal = [one == other for one, other in zip(*answers, strict=True)]
    metric = config.task.metric
    scores = {"name": metric, "original": before.get(metric), "exported": after.get(metric)}
    if scores["original"] is not None and scores["exported"] is not None:
        scores["loss"] = lost(metric, before[metric], after[metric])
    return {
        "split": name,
        "rows": len(split),
        "difference": task.output_difference(*outputs),
        "limit": DIFFERENCE[config.export.precision],
        "equal_answers": sum(equal) / len(equal) if any(answers[0]) else None,
        "shapes": _shapes(task, original, exported, split.features),
        "padding": _padding(task, exported, split.features),
        "metric": scores,
        "max_loss": config.export.max_loss,
    }


def bare(outputs: list[Any], features: FeatureSet) -> list[Any]:
    """Outputs without their asides."""
    return outputs if features.asides is None else [output for output, _ in outputs]


def settled(answer: Any) -> Any:
    """An answer without its floats, such as scores and boxes, which never are the same number in two runtimes.

    What is left are labels, texts, and places; of an answer that is nothing but numbers, None or an empty list or dict.
    """
    if isinstance(answer, float):
        return None
    if isinstance(answer, list):
        return [found for part in answer if (found := settled(part)) not in (None, [], {})]
    if isinstance(answer, dict):
        return {key: found for key, part in answer.items() if (found := settled(part)) not in (None, [], {})}
    return answer


def lost(metric: str, original: float, exported: float) -> float:
    """How much worse a metric became: the difference, or if less is better, the relative increase."""
    # Relative for errors, since they have the unit of the data, and export.max_loss is one number for all tasks.
    return original - exported if METRICS[metric] else (exported - original) / max(abs(original), 1e-30)


def outputs(task: Task[Any], model: Any, batch: dict[str, torch.Tensor]) -> list[Any]:
    """The output for each feature of a batch, in float32."""
    with float32(model):
        found: list[Any] = task.objective.predict(model, batch)[0]
    return found


def _shapes(task: Task[Any], original: Any, exported: Any, features: FeatureSet) -> list[dict[str, Any]]:
    found = []
    for index, rows in enumerate(ROWS):
        batch = batch_at(task, features, index / len(ROWS), rows)
        shapes = {name: list(value.shape) for name, value in batch.items()}
        apart = task.output_difference(*(outputs(task, model, batch) for model in (original, exported)))
        found.append({"inputs": shapes, "difference": apart})
    return found


def _padding(task: Task[Any], exported: Any, features: FeatureSet) -> float | None:
    """The difference of the shortest feature alone and in a batch with the longest; None without lengths."""
    if features.lengths is None:
        return None
    alone = outputs(task, exported, batch_of(task, features, [by_length(features)[-1]]))
    # A feature of several texts, such as a pair, gives an output each here.
    return task.output_difference(alone, outputs(task, exported, sample(task, features))[-len(alone) :])


def check(parity: Mapping[str, Any]) -> None:
    """Raise Failure if an export differs from the original by more than its precision allows, with every number."""
    limit = parity["limit"]
    found = {f"over {plural(parity['rows'], 'rows')} of {parity['split']}": parity["difference"]}
    found |= {f"for {_shape(shape['inputs'])}": shape["difference"] for shape in parity["shapes"]}
    found |= {"for a row with padding": parity["padding"]} if parity["padding"] is not None else {}
    # "not <=" instead of ">": NaN fails too.
    wrong = [f"outputs differ by {value:.1e} {where}" for where, value in found.items() if not value <= limit]
    metric = parity["metric"]
    if not metric.get("loss", 0.0) <= parity["max_loss"]:
        wrong.append(
            f"{metric['name']} is {metric['exported']:.4f} instead of {metric['original']:.4f} on {parity['split']}, "
            f"and export.max_loss allows {parity['max_loss']:g}"
        )
    if wrong:
        raise Failure(f"the export differs from the original (limit {limit:g}) and was removed: {'; '.join(wrong)}")


def _shape(inputs: dict[str, list[int]]) -> str:
    rows, *sides = next(iter(inputs.values()))
    return " x ".join(map(str, (rows, *sides))) if sides else plural(rows, "rows")


def latencies(task: Task[Any], original: Any, exported: Any, features: FeatureSet) -> dict[str, Any]:
    """Milliseconds per batch of real rows of median length: the median of up to 30 rounds, or of 3 seconds.

    Original and export take turns, so that other load on the machine affects both alike.
    """
    found = []
    with float32(original), float32(exported):
        for rows in TIMED:
            batch = batch_at(task, features, 0.5, rows)
            before, after = (median(times) for times in _by_turns((original, exported), batch))
            inputs = {name: list(value.shape) for name, value in batch.items()}
            found.append({"inputs": inputs, "original": before, "exported": after, "ratio": before / after})
    return {"threads": torch.get_num_threads(), "batches": found}


def _by_turns(models: tuple[Any, ...], batch: dict[str, torch.Tensor]) -> list[list[float]]:
    """Milliseconds per call of each model, in rounds."""
    times: list[list[float]] = [[] for _ in models]
    end = time.perf_counter() + SECONDS
    for number in range(ROUNDS + 2):
        for model, taken in zip(models, times, strict=True):
            start = time.perf_counter()
            model(**batch)
            if number >= 2:  # two rounds of warm-up: the first call allocates memory and compiles kernels
                taken.append((time.perf_counter() - start) * 1000)
        if number >= 4 and time.perf_counter() > end:
            break
    return times
