"""How long an answer takes, beside the original."""

import time
from statistics import median
from typing import Any

import torch

from llmft.export.parity import batch_at
from llmft.tasks.task import Task
from llmft.training.evaluation import float32
from llmft.training.features import FeatureSet

ROWS = (1, 8)
ROUNDS, SECONDS = 30, 3.0


def latencies(task: Task[Any], original: Any, exported: Any, features: FeatureSet) -> dict[str, Any]:
    """Milliseconds a batch of real rows of middling length, original and exported by turns, so that both see the same
    machine: the median of 30 rounds, or of as many as three seconds hold.
    """
    found = []
    with float32(original), float32(exported):
        for rows in ROWS:
            batch = batch_at(task, features, 0.5, rows)
            before, after = (median(times) for times in _by_turns((original, exported), batch))
            inputs = {name: list(value.shape) for name, value in batch.items()}
            found.append({"inputs": inputs, "original": before, "exported": after, "ratio": before / after})
    return {"threads": torch.get_num_threads(), "batches": found}


def _by_turns(models: tuple[Any, ...], batch: dict[str, torch.Tensor]) -> list[list[float]]:
    """Milliseconds of each model, in rounds; two rounds before them are not counted."""
    times: list[list[float]] = [[] for _ in models]
    end = time.perf_counter() + SECONDS
    for number in range(ROUNDS + 2):
        for model, taken in zip(models, times, strict=True):
            start = time.perf_counter()
            model(**batch)
            if number >= 2:
                taken.append((time.perf_counter() - start) * 1000)
        if number >= 4 and time.perf_counter() > end:
            break
    return times
