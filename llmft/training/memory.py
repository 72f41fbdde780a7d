"""Memory that runs out: known by its errors, and looked for before training, while nothing is lost by it."""

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


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory; torch has no class of its own for that on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))


@contextmanager
def enough_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Turn the error of memory that ran out into a Failure with `advice`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise Failure(advice()) from error


def advice(config: Config, when: str) -> str:
    """What to write instead; the batch of half the rows and twice the accumulation trains the same."""
    rows, accumulation = config.trainer.rows, config.trainer.accumulation
    ways = [f"trainer.batch_size={rows // 2} trainer.accumulation={2 * accumulation}"] if rows > 1 else []
    if config.hardware.precision != "bf16":
        ways.append("hardware.precision=bf16")
    return _advice(config, when, rows, ways)


def advice_for_scoring(config: Config) -> str:
    """The same for evaluation, whose batches have a size of their own."""
    rows = config.trainer.eval_batch_size
    return _advice(config, "while rows were scored", rows, [f"trainer.eval_batch_size={max(1, rows // 4)}"])


def _advice(config: Config, when: str, rows: int, ways: list[str]) -> str:
    if length := getattr(config.task, key := config.task.length, None):
        ways.insert(1, f"task.{key}={length // 2}")
    return f"out of memory {when}, in batches of {plural(rows, 'rows')}. Less is needed with {', or '.join(ways)}"


def rows_that_fit(
    config: Config, task: Task[Any], model: PreTrainedModel, features: FeatureSet, hardware: Hardware
) -> int:
    """The largest batch that can be trained on: `trainer.batch_size`, or a part of it without a remainder.

    The longest rows, of a stream those of its sample, are tried: forward, backward, and with room for what Adam keeps.
    Where several processes train, all of them must have room. Nothing of it remains: no step is taken, and the random
    state and the buffers of the model are put back.

    Raises:
        Failure: if a single row is too large.
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
        if rows == 1:
            raise Failure(advice(config, "before the first step, even for a single row"))
        rows = next(part for part in range(rows // 2, 0, -1) if size % part == 0)


def _fits(task: Task[Any], model: PreTrainedModel, batch: dict[str, torch.Tensor], hardware: Hardware) -> bool:
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(hardware.precision)
    model.train()
    try:
        with torch.random.fork_rng():
            with torch.autocast(hardware.device, dtype, enabled=dtype is not None):
                loss = task.loss(model, batch)
            loss.backward()
            kept = [torch.zeros_like(p) for p in model.parameters() if p.requires_grad for _ in range(2)]
            del loss, kept
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
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
