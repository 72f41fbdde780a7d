"""Trains a model from its last checkpoint, or from the start, and loads its best weights."""

import gc
import math
import multiprocessing
import pickle
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from transformers import EarlyStoppingCallback, PreTrainedModel, PrinterCallback, TrainerCallback

from llmft.models.adapters import trained_part
from llmft.reporting.lines import phase
from llmft.runs import checkpoints
from llmft.schema.config import Config
from llmft.schema.problem import Failure, Stopped
from llmft.training import processes
from llmft.training.callbacks import GradualUnfreezing, Progress, StopSignals, Watchdog
from llmft.training.evaluation import Experiment, Split
from llmft.training.loop import Clock, Trainer, training_arguments
from llmft.training.memory import advice, enough_memory, find_batch_size
from llmft.training.optimization import planned_steps, resolve_batch_size


def train(experiment: Experiment, splits: dict[str, Split], others: Sequence[TrainerCallback] = ()) -> dict[str, Any]:
    """Train the model of an experiment in place; with a validation split, to the weights of the best checkpoint.

    Args:
        splits: those of the experiment, or with columns that were added for training; see training/frozen.py.
        others: further callbacks, called after ours.

    Returns:
        `seconds` of training steps only, `evaluation_seconds`, `saving_seconds`, `steps`, `epochs`,
        `samples_per_second`, `tokens_per_second` if features have lengths (of a stream, those of its sample), and the
        mean `loss`. The caller removes `earlier_seconds` and `answered`, see `Trainer.load_best`.

    Raises:
        Failure: if no checkpoint can be used, disk or memory run out, or a loss is not finite.
        Stopped: after a signal, with a checkpoint saved.
    """
    config, task, hardware, run = experiment.config, experiment.task, experiment.hardware, experiment.run
    model = trained_part(experiment.model)
    folder = run.folder / "checkpoints"
    checkpoint = _checkpoint_of(folder)
    run.forget_events_after(_step_of(checkpoint))
    _check_disk(run.folder, model, kept_whole=config.adapter.name == "none")
    config = resolve_batch_size(config, splits["train"].features)
    clock = Clock.load(checkpoint) if checkpoint else Clock(rows=config.trainer.rows)
    # Not for a sharded model, which need not fit into the memory of one process as a whole.
    if checkpoint is None and config.hardware.strategy == "ddp":
        model.to(hardware.device)
        clock.rows = experiment.known_batch_size or find_batch_size(
            config, task, model, splits["train"].features, hardware
        )
    config = _in_batches_of(clock.rows, config)
    metric = config.metric_for_best
    signals, watchdog = StopSignals(), Watchdog(run, config.trainer.step_timeout, resumed=checkpoint is not None)
    callbacks: list[Any] = [Progress(run, metric), signals, watchdog, *others]
    if config.model.unfreeze:
        callbacks.append(GradualUnfreezing(model, config.model.unfreeze))
    if config.trainer.patience and "validation" in splits:
        callbacks.append(EarlyStoppingCallback(config.trainer.patience))
    steps = planned_steps(config, splits["train"].examples)
    arguments = training_arguments(config, hardware, folder, "validation" in splits, steps)
    trainer = Trainer(
        config, task, splits, folder, clock, signals, watchdog, model=model, args=arguments, callbacks=callbacks
    )
    trainer.remove_callback(PrinterCallback)
    clock.started = time.perf_counter()
    # accelerate calls gc.collect before the first step, which scans every imported object: 0.1 s. Frozen, they are not.
    gc.freeze()
    try:
        if checkpoint and clock.ended:
            trainer.load_finished(checkpoint)
        else:
            with signals, watchdog, enough_memory(lambda: advice(config, f"after step {trainer.state.global_step}")):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except pickle.UnpicklingError as error:
        assert checkpoint
        raise Failure(f"{checkpoint} holds more than numbers, and is not loaded: it was changed by hand") from error
    finally:
        # A forked job of a sweep ends after this run: to unfreeze a million objects of its parent would copy them all.
        if multiprocessing.parent_process() is None:
            gc.unfreeze()
    step = trainer.state.global_step
    if signals.received and step < trainer.state.max_steps:
        raise Stopped(f"{signals.received} after step {step}, which is saved. Go on with: {run.again}")
    answered = trainer.load_best()
    seconds, features = clock.seconds, splits["train"].features
    epochs = float(trainer.state.epoch or 0)
    seen = epochs * len(trainer.train_dataset)
    facts: dict[str, Any] = {
        "seconds": seconds,
        "evaluation_seconds": clock.evaluating,
        "saving_seconds": clock.saving,
        "steps": step,
        "epochs": epochs,
        "batch_size": clock.rows,
        "earlier_seconds": clock.total,
        "answered": answered,
        "loss": mean(processes.all_gather(clock.loss)) / step,
        "samples_per_second": seen / seconds,
    }
    if features.mean_length is not None:
        facts["tokens_per_second"] = seen * features.mean_length / seconds
    return facts


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _checkpoint_of(folder: Path) -> Path | None:
    """The newest checkpoint that can be used, and None for a new run; prints a note on those that cannot.

    Raises:
        Failure: if there are complete checkpoints, but none of them can be used.
    """
    checkpoint, passed_over = processes.from_rank0(lambda: checkpoints.latest(folder))
    for line in passed_over:
        phase("note", f"{line}; it is not used")
    if checkpoint is None and any((path / checkpoints.MANIFEST).is_file() for path in checkpoints.found(folder)):
        raise Failure(f"no checkpoint in {folder} can be used: {'; '.join(passed_over)}. Nothing was deleted.")
    if checkpoint:
        print(f"  resumes   after step {_step_of(checkpoint)}", flush=True)
    return checkpoint


def _check_disk(folder: Path, model: PreTrainedModel, kept_whole: bool) -> None:
    """Raise Failure if two checkpoints do not fit on the disk: the older one is deleted after the newer is complete."""
    # 4 bytes per weight, and 8 for Adam's two moments of each weight that trains.
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    needed = 2 * sum(4 * size * (trains or kept_whole) + 8 * size * trains for size, trains in sizes)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise Failure(f"{folder} has {free / 1e6:,.0f} MB free, and two checkpoints need {needed / 1e6:,.0f} MB")


def _in_batches_of(rows: int, config: Config) -> Config:
    """The config with batches of `rows`, and more accumulation, so that a step has the same rows."""
    trainer = config.trainer
    if rows == trainer.rows:
        return config
    accumulation = math.ceil(trainer.accumulation * trainer.rows / rows)
    what = f"{trainer.rows} rows do not fit into memory at once"
    phase("note", f"{what}: batches of {rows}, {accumulation} of them a step, which trains the same")
    smaller = trainer.model_copy(update={"batch_size": rows, "accumulation": accumulation})
    return config.model_copy(update={"trainer": smaller})
