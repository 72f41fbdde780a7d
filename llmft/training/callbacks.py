"""Callbacks of the Trainer: progress, stop signals, the watchdog, gradual unfreezing, the epoch of a sampler."""

import faulthandler
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self

import psutil
from tqdm import tqdm
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmft.models.layers import parts, unfreeze_epochs
from llmft.reporting.lines import duration
from llmft.runs.ending import StopRequests, name_of
from llmft.runs.folder import Run
from llmft.schema.metric import METRICS
from llmft.schema.problem import Failure
from llmft.training import processes
from llmft.training.evaluation import ties_with_less_loss


def not_finite(name: str, value: float, step: int) -> str:
    """The error for a loss, gradient, or weight that is NaN or infinite. Such weights never become a checkpoint."""
    return (
        f"{name} must be a finite number, got {value} at step {step}. These weights are not saved; earlier checkpoints "
        "are kept. Try a smaller optimizer.lr or more scheduler.warmup_steps."
    )


class Progress(TrainerCallback):
    """Writes each logged step and evaluation to events.jsonl, and prints it: a bar on a terminal, else lines.

    It marks an evaluation as the best so far by the rule that picks the best checkpoint, see `Trainer`.
    """

    def __init__(self, run: Run, metric: str) -> None:
        self.run = run
        self.metric = metric
        self.best: dict[str, Any] = {}
        self.bar: tqdm | None = None
        self.started, self.first = 0.0, 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.started, self.first = time.perf_counter(), state.global_step
        step, metric = state.best_global_step, f"eval_{self.metric}"
        self.best = next((logged for logged in state.log_history if logged["step"] == step and metric in logged), {})
        if sys.stderr.isatty():
            self.bar = tqdm(
                total=state.max_steps, initial=self.first, unit="step", dynamic_ncols=True, leave=False, disable=False
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        facts: dict[str, Any] = {"step": state.global_step, "epoch": state.epoch}
        # In fp16 an infinite gradient is normal: the scaler skips that step and lowers its scale.
        for name in ("loss", "eval_loss", *(() if args.fp16 else ("grad_norm",))):
            if not math.isfinite(logs.get(name, 0.0)):
                raise Failure(not_finite(name, logs[name], state.global_step))
        if "learning_rate" in logs:
            names = {"loss": "loss", "grad_norm": "grad_norm", "learning_rate": "lr"}
            facts |= {"split": "train", **{name: logs[key] for key, name in names.items() if key in logs}}
            self._show_step(state, facts)
        elif "eval_loss" in logs or f"eval_{self.metric}" in logs:
            scores = {key.removeprefix("eval_"): value for key, value in logs.items() if key.startswith("eval_")}
            facts |= {"split": "validation", **scores}
            self._show_scores(state, scores, logs)
        else:
            return
        self.run.event(facts)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def _show_step(self, state: TrainerState, facts: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {facts['loss']:.4f}")
            return
        elapsed = time.perf_counter() - self.started
        # A resumed run measures its own steps only: `first` is where this session began.
        left = elapsed / (state.global_step - self.first) * (state.max_steps - state.global_step)
        width = len(str(state.max_steps))
        self._print(
            f"step {state.global_step:>{width}}/{state.max_steps}  loss {facts['loss']:.4f}  lr {facts['lr']:.2e}"
            f"  {duration(left)} left"
        )

    def _show_scores(self, state: TrainerState, scores: dict[str, Any], logs: dict[str, Any]) -> None:
        value, metric = scores.get(self.metric), f"eval_{self.metric}"
        shown = [
            f"{name} {scores[name]:.4f}"
            for name in dict.fromkeys(("loss", self.metric))
            if scores.get(name) is not None
        ]
        if value is not None:
            higher = METRICS[self.metric]
            better = not self.best or (value > self.best[metric] if higher else value < self.best[metric])
            # On a small split many evaluations have the same accuracy. The loss decides which of them is the best.
            if better or ties_with_less_loss(logs, self.best, self.metric):
                self.best = logs
                shown.append("(best so far)")
        self._print(f"epoch {state.epoch or math.nan:.2f}  validation: {'  '.join(shown)}")

    def _print(self, line: str) -> None:
        if self.bar is not None:
            self.bar.write(f"  {line}", file=sys.stdout)
        else:
            print(f"  {line}", flush=True)


class StopSignals(StopRequests, TrainerCallback):
    """Inside the context, a signal to any process makes all of them save and stop after the same step."""

    def __init__(self) -> None:
        super().__init__()
        self.agreed = 0
        self.within_epoch = False

    @property
    def received(self) -> str | None:
        """The name of the signal that stops the run; None while there is none."""
        return name_of(self.agreed)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # A signal reaches the processes one after the other, and one that stops a step early leaves the others waiting
        # in their all-reduce for ever. So they agree after each step, which takes 0.2 ms.
        self.agreed = processes.all_reduce_max(self.noticed)
        if self.received and state.global_step < state.max_steps:
            control.should_training_stop = True
            self.within_epoch = not float(state.epoch or 0).is_integer()
            # At the end of an epoch, transformers evaluates and then saves by itself.
            control.should_save |= self.within_epoch or args.save_strategy != "epoch"

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # transformers treats a stop as the end of the epoch, and would log a score that an unstopped run does not have.
        if self.received and self.within_epoch:
            control.should_evaluate = control.should_save = False


class Watchdog(TrainerCallback):
    """Inside the context, a step of more than `seconds` ends the process with exit code 1.

    It first writes the stacks of all threads to stacks_RANK.txt in the run folder. Without it, a hanging data loader
    or a lost process of several would keep the run waiting for ever.
    """

    def __init__(self, run: Run, seconds: float, resumed: bool) -> None:
        self.run = run
        self.seconds = seconds
        self.step = 0
        self.last = time.monotonic()
        self.is_paused = resumed  # until the first step: a resumed stream first reads past all rows trained on
        self.over = threading.Event()

    def __enter__(self) -> Self:
        self.last = time.monotonic()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No limit inside this context: evaluation and saving take as long as they need."""
        self.is_paused = True
        try:
            yield
        finally:
            self.last, self.is_paused = time.monotonic(), False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.last, self.step, self.is_paused = time.monotonic(), state.global_step, False

    def _watch(self) -> None:
        while not self.over.wait(min(1.0, self.seconds / 4)):
            if not self.is_paused and time.monotonic() - self.last > self.seconds:
                self._end()

    def _end(self) -> None:
        why = f"no step for {self.seconds:g} s, after step {self.step}"
        stacks = self.run.folder / f"stacks_{processes.rank()}.txt"
        print(
            f"failed: {why}. {stacks} says where each thread was. "
            "The last checkpoint is kept. If a step may take this long, raise trainer.step_timeout.",
            file=sys.stderr,
            flush=True,
        )
        try:
            with stacks.open("w", encoding="utf-8") as stream:
                faulthandler.dump_traceback(stream, all_threads=True)
            self.run.note(status="failed", why=why)
            for child in psutil.Process().children(recursive=True):
                child.kill()  # a data loader's worker that hangs would outlive this process
        finally:
            os._exit(1)  # sys.exit ends this thread only, and the main thread hangs


class GradualUnfreezing(TrainerCallback):
    """Unfreezes a model from the top, some layers more in each epoch (Howard and Ruder 2018, ULMFiT, section 3.3).

    Until its epoch a part has no gradient, so the optimizer leaves it alone, weight decay included.
    """

    def __init__(self, model: PreTrainedModel, layers: int) -> None:
        """`layers` is how many are added per epoch. Weights that are frozen now stay frozen."""
        starts = unfreeze_epochs(model, layers)
        self.weights = [
            (parameter, starts[part.name])
            for part in parts(model)
            for parameter in part.parameters.values()
            if parameter.requires_grad
        ]

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        epoch = int(state.epoch or 0)
        for parameter, start in self.weights:
            parameter.requires_grad_(epoch >= start)


class HasEpoch(Protocol):
    """A source of rows whose order depends on the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counting from 0."""


class EpochOrder(TrainerCallback):
    """Sets the epoch of a sampler, a stream, or blocks before the epoch is read.

    transformers sets it too, but does not reach through the wrappers that accelerate adds for several processes and
    for an epoch that is resumed in the middle.
    """

    def __init__(self, rows: HasEpoch) -> None:
        self.rows = rows

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.rows.set_epoch(int(state.epoch or 0))
