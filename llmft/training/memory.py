"""Out of memory: recognizing the error, advising what to write instead, and finding a batch size that fits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from llmft.schema.config import Config
from llmft.schema.problem import Failure, plural
from llmft.tasks.task import Task
from llmft.training import processes
from llmft.training.batches import collator
from llmft.training.features import FeatureSet
from llmft.training.hardware import Hardware


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory. On a CPU torch raises a plain RuntimeError, known by its text alone."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))


@contextmanager
def enough_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Turn an out-of-memory error into a Failure whose text is `advice()`; called late, it may name the last step."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise Failure(advice()) from error


def advice(config: Config, when: str) -> str:
    """The keys that reduce memory in training. Half the batch size with twice the accumulation trains the same."""
    rows, accumulation = config.trainer.rows, config.trainer.accumulation
    if config.task.compares_rows:  # half a batch would be another loss
        return _advice(config, when, rows, [f"task.chunk={max(1, rows // 4)}"])
    ways = [f"trainer.batch_size={rows // 2} trainer.accumulation={2 * accumulation}"] if rows > 1 else []
    if config.hardware.precision != "bf16":
        ways.append("hardware.precision=bf16")
    return _advice(config, when, rows, ways)


def advice_for_scoring(config: Config) -> str:
    """The keys that reduce memory in evaluation."""
    rows = config.trainer.eval_batch_size
    return _advice(config, "while rows were scored", rows, [f"trainer.eval_batch_size={max(1, rows // 4)}"])


def _advice(config: Config, when: str, rows: int, ways: list[str]) -> str:
    if length := getattr(config.task, key := config.task.length, None):
        ways.insert(1, f"task.{key}={length // 2}")
    return f"out of memory {when}, with batches of {plural(rows, 'rows')}. To use less, set {', or '.join(ways)}"


def find_batch_size(
    config: Config, task: Task[Any], model: PreTrainedModel, features: FeatureSet, hardware: Hardware
) -> int:
    """The largest batch size that fits into memory: `trainer.batch_size`, or the next divisor of it that does.

    Tries forward and backward on the longest rows (of a stream, the longest of its sample), with room for Adam's two
    moments. With several processes, it has to fit in all of them. Leaves no trace: no step is taken, and the random
    state and the model's buffers are restored.

    Raises:
        Failure: if a single row does not fit, or for a loss that compares the rows of a batch, a batch.
    """
    size = config.trainer.rows
    lengths = features.lengths
    order = sorted(range(len(features)), key=lambda i: -lengths[i]) if lengths else list(range(len(features)))
    collate = collator(config, task)
    rows = size
    while True:
        longest = collate(features.__getitems__(order[:rows]))
        batch = {key: value.to(hardware.device) for key, value in longest.items()}
        if not processes.all_reduce_max(not _fits(task, model, batch, hardware)):
            return rows
        if rows == 1 or config.task.compares_rows:
            raise Failure(advice(config, "before the first step" + ", even for a single row" * (rows == 1)))
        # A divisor of the batch size, so that accumulated batches add up to exactly the rows that a step had.
        rows = next(divisor for divisor in range(rows // 2, 0, -1) if size % divisor == 0)


def _fits(task: Task[Any], model: PreTrainedModel, batch: dict[str, torch.Tensor], hardware: Hardware) -> bool:
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(hardware.precision)
    model.train()
    try:
        with torch.random.fork_rng():
            with torch.autocast(hardware.device, dtype, enabled=dtype is not None):
                loss = task.objective.loss(model, batch)
            loss.backward()
            # Adam allocates its two moments in the first step, while all gradients are still there.
            moments = [torch.zeros_like(p) for p in model.parameters() if p.requires_grad for _ in range(2)]
            del loss, moments
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        model.zero_grad(set_to_none=True)
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
        if hardware.device == "cuda":
            torch.cuda.empty_cache()
        elif hardware.device == "mps":
            torch.mps.empty_cache()
    return True
