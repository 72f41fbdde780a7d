"""Trains models whose step takes a millisecond, such as BPR-MF and SVD++, without transformers' Trainer.

The Trainer takes 1 to 2 ms a step for itself: an epoch of BPR-MF on 80,000 interactions, 40 steps, would take twice as
long. What a user sees is the same: validation after each epoch, the best weights, early stopping, and resuming.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file, save_file

from llmft.runs import checkpoints
from llmft.runs.ending import StopRequests
from llmft.schema.metric import METRICS
from llmft.schema.problem import Failure, Stopped
from llmft.tasks.task import Task
from llmft.training.callbacks import not_finite
from llmft.training.evaluation import Experiment, Split, batches, float32

SPARSE = 50_000
"""Rows of all tables from which on Adam updates only those of a batch. A step of 2,048 pairs takes 10.9 ms with 300,000
rows, where fused Adam takes 122 and plain Adam 233; with 30,000 it takes 7.2, and fused Adam 4.2."""
SAVED = 20.0  # seconds of training between two checkpoints: most runs are over before the first
SHOWN = 10  # lines of a run on the console


def by_epochs(model: torch.nn.Module) -> bool:
    """Whether a model has `start`, `batches`, and `step_loss`, and so is trained here; see models/factor_models.py."""
    return callable(getattr(model, "step_loss", None))


class Adam:
    """Adam for tables of embeddings: fused up to SPARSE rows, and beyond for the rows of a batch alone.

    Neither has a weight decay, which would set rows that no batch holds to 0, since Adam divides it by its own size.
    """

    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        weights = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        rows = sum(weight.shape[0] for _, weight in weights)
        self.sparse = rows > SPARSE and getattr(model, "sparse_steps", False)
        self.names = [name for name, _ in weights]
        own = [weight for _, weight in weights]
        self.optimizer = torch.optim.SparseAdam(own, lr=lr) if self.sparse else torch.optim.Adam(own, lr=lr, fused=True)

    def step(self, loss: torch.Tensor) -> None:
        """Update the weights by the gradient of a loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The moments, by weight."""
        state = self.optimizer.state_dict()["state"]
        return {
            f"{name}.{key}": torch.as_tensor(value)
            for number, name in enumerate(self.names)
            for key, value in state.get(number, {}).items()
        }

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take moments from `tensors`."""
        state = self.optimizer.state_dict()
        for number, name in enumerate(self.names):
            own = {key.removeprefix(f"{name}."): v for key, v in tensors.items() if key.rpartition(".")[0] == name}
            if self.sparse and own:
                own["step"] = int(own["step"])  # type: ignore[assignment]
            state["state"][number] = own
        self.optimizer.load_state_dict(state)


class Course:
    """How far training has come, with the best weights so far; it is kept in checkpoints."""

    def __init__(self, model: torch.nn.Module, optimizer: Adam) -> None:
        self.model, self.optimizer = model, optimizer
        self.epoch, self.best_epoch, self.seconds = 0, 0, 0.0
        self.best: float | None = None
        self.weights: dict[str, torch.Tensor] = {}

    def keep(self, value: float) -> None:
        """Take the weights as they are for the best."""
        self.best, self.best_epoch = value, self.epoch
        self.weights = {name: weight.clone() for name, weight in self.model.state_dict().items()}

    def save(self, folder: Path) -> None:
        """Write a checkpoint below `folder`, and delete older ones."""
        place = folder / f"checkpoint-{self.epoch}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        parts = {"model": self.model.state_dict(), "best": self.weights, "optimizer": self.optimizer.tensors()}
        for name, tensors in parts.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, place / f"{name}.safetensors")
        facts = {"epoch": self.epoch, "best_epoch": self.best_epoch, "best": self.best, "seconds": self.seconds}
        (place / "course.json").write_text(json.dumps(facts), encoding="utf-8")
        checkpoints.commit(place)
        checkpoints.rotate(folder, 1, self.epoch, None)

    def load(self, place: Path) -> None:
        """Take what `save` wrote."""
        for name, value in json.loads((place / "course.json").read_text(encoding="utf-8")).items():
            setattr(self, name, value)
        self.weights = load_file(place / "best.safetensors")
        self.model.load_state_dict(load_file(place / "model.safetensors"))
        self.optimizer.load(load_file(place / "optimizer.safetensors"))


def train_epochs(experiment: Experiment, train: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Train the model of an experiment in place, with a validation split to the weights of its best epoch.

    The order of rows and what is drawn depend on (seed, epoch) alone, so that a resumed run ends with the same weights.

    Args:
        train: all training rows, as the model's `start` takes them.

    Raises:
        Failure: if a loss is not finite, or no checkpoint can be used.
        Stopped: after a signal, with a checkpoint saved.
    """
    config, model, run = experiment.config, experiment.model, experiment.run
    trainer, metric = config.trainer, config.metric_for_best
    folder = run.folder / "checkpoints"
    model.start(train)
    optimizer = Adam(model, config.optimizer.lr)
    course = Course(model, optimizer)
    newest, passed_over = checkpoints.latest(folder)
    if newest:
        course.load(newest)
        print(f"  resumes   after epoch {course.epoch}", flush=True)
    elif passed_over:
        raise Failure(f"no checkpoint in {folder} can be used: {'; '.join(passed_over)}. Nothing was deleted.")
    size, epochs = trainer.rows, math.ceil(trainer.epochs)
    each = math.ceil(len(next(iter(train.values()))) / size)
    run.forget_events_after(course.epoch * each)
    validation = experiment.splits.get("validation")
    evaluate = _evaluation(experiment.task, model, validation, trainer.eval_batch_size) if validation else None
    saved, evaluating, loss = time.perf_counter(), 0.0, 0.0
    with StopRequests() as stop:
        while course.epoch < epochs and not _patient_enough(course, trainer.patience if evaluate else None):
            start = time.perf_counter()
            loss = _epoch(model, optimizer, config.seed, course.epoch, size)
            course.epoch += 1
            course.seconds += time.perf_counter() - start
            step = course.epoch * each
            if not math.isfinite(loss):
                raise Failure(not_finite("loss", loss, step))
            run.event({"step": step, "epoch": course.epoch, "split": "train", "loss": loss})
            line = f"epoch {course.epoch:>{len(str(epochs))}}/{epochs}  loss {loss:.4f}"
            if evaluate:
                start = time.perf_counter()
                _finish(model)
                scores = evaluate()
                evaluating += time.perf_counter() - start
                run.event({"step": step, "epoch": course.epoch, "split": "validation", **scores})
                value = scores[metric]
                line += f"  validation {metric} {value:.4f}"
                if course.best is None or (value > course.best if METRICS[metric] else value < course.best):
                    course.keep(value)
                    line += " (best so far)"
            if course.epoch % max(epochs // SHOWN, 1) == 0 or course.epoch in (1, epochs):
                print(f"  {line}", flush=True)
            if stop.received or time.perf_counter() - saved > SAVED:
                course.save(folder)
                saved = time.perf_counter()
            if stop.received and course.epoch < epochs:
                raise Stopped(f"{stop.received} after epoch {course.epoch}, which is saved. Go on with: {run.again}")
    if course.weights:
        model.load_state_dict(course.weights)
        print(f"  best      epoch {course.best_epoch} of {course.epoch}", flush=True)
    _finish(model)
    seen = course.epoch * len(next(iter(train.values())))
    return {
        "evaluation_seconds": evaluating,
        "steps": course.epoch * each,
        "epochs": float(course.epoch),
        "batch_size": size,
        "loss": loss,
        "samples_per_second": seen / max(course.seconds, 1e-9),
        "seconds": course.seconds,
    }


def _epoch(model: Any, optimizer: Adam, seed: int, epoch: int, size: int) -> float:
    """One pass over the training rows: the mean loss of its batches."""
    model.train()
    total, count = torch.zeros(()), 0
    for batch in model.batches(numpy.random.default_rng((seed, epoch)), size):
        loss = model.step_loss(batch, optimizer.sparse)
        optimizer.step(loss)
        total += loss.detach()
        count += 1
    return float(total) / max(count, 1)


def _finish(model: Any) -> None:
    if callable(getattr(model, "finish", None)):
        model.finish()


def _patient_enough(course: Course, patience: int | None) -> bool:
    """Whether there was no better epoch for too long."""
    return patience is not None and course.epoch - course.best_epoch >= patience and course.best is not None


def _evaluation(task: Task[Any], model: torch.nn.Module, split: Split, size: int) -> Callable[[], dict[str, float]]:
    """Computes the metrics of a split, from batches that are made once: they are most of what evaluation would take."""
    made = list(batches(task, split.features, size, model))

    def evaluate() -> dict[str, float]:
        outputs: list[Any] = [None] * len(split.features)
        with float32(model):
            for numbers, batch in made:
                for number, output in zip(numbers, task.objective.predict(model, batch)[0], strict=True):
                    outputs[number] = output
        answers = task.decode(split.features.with_asides(outputs, range(len(outputs))), split.features.rows)
        found = task.score(answers, split.rows)
        return {name: value for name, value in found.items() if isinstance(value, float)}

    return evaluate
