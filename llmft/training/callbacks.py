"""Who is told of each step: progress for a person, signals, the watchdog, unfreezing, the order of rows."""

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

from llmft.models.layers import parts, unfreezing
from llmft.reporting.lines import duration
from llmft.runs.ending import StopRequests, name_of
from llmft.runs.folder import Run
from llmft.schema.metric import METRICS
from llmft.schema.problem import Failure
from llmft.training import processes
from llmft.training.evaluation import ties_with_less_loss


def lost(name: str, value: float, step: int) -> str:
    """What to say of a number that is none."""
    return f"{name} is {value} at step {step}; the weights are lost. A smaller optimizer.lr, or more warm-up, may help."


class Progress(TrainerCallback):
    """Writes each logged step and evaluation to events.jsonl and shows it: a bar on a terminal, lines in a log."""

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
        # In fp16 the scaler leaves out steps whose gradient is infinite, and lowers its scale.
        for name in ("loss", "eval_loss", *(() if args.fp16 else ("grad_norm",))):
            if not math.isfinite(logs.get(name, 0.0)):
                raise Failure(lost(name, logs[name], state.global_step))
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
        passed = time.perf_counter() - self.started
        left = passed / (state.global_step - self.first) * (state.max_steps - state.global_step)
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
    """While it is entered, all processes of a run save and stop at the same step once one of them got a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.agreed = 0
        self.within_epoch = False

    @property
    def received(self) -> str | None:
        """The signal that all processes stop by."""
        return name_of(self.agreed)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # It reaches one process after the other, and one that stopped a step early would leave the others waiting.
        self.agreed = processes.all_reduce_max(self.noticed)
        if self.received and state.global_step < state.max_steps:
            control.should_training_stop = True
            self.within_epoch = not float(state.epoch or 0).is_integer()
            # What is due at the end of an epoch, its score and then its checkpoint, comes by itself there.
            control.should_save |= self.within_epoch or args.save_strategy != "epoch"

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # transformers takes a stop for the end of the epoch: a score that an unstopped run does not have.
        if self.received and self.within_epoch:
            control.should_evaluate = control.should_save = False


class Watchdog(TrainerCallback):
    """While it is entered, a step of more than `seconds` ends the process with exit code 1.

    The stacks of all threads are written down, and the run ends instead of waiting for ever.
    """

    def __init__(self, run: Run, seconds: float, resumed: bool) -> None:
        self.run = run
        self.seconds = seconds
        self.step = 0
        self.last = time.monotonic()
        self.paused = resumed  # until the first step is done: a stream reads what was trained on once more
        self.over = threading.Event()

    def __enter__(self) -> Self:
        self.last = time.monotonic()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Evaluation and saving take what they take."""
        self.paused = True
        try:
            yield
        finally:
            self.last, self.paused = time.monotonic(), False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.last, self.step, self.paused = time.monotonic(), state.global_step, False

    def _watch(self) -> None:
        while not self.over.wait(min(1.0, self.seconds / 4)):
            if not self.paused and time.monotonic() - self.last > self.seconds:
                self._end()

    def _end(self) -> None:
        why = f"no step for {self.seconds:g} s, after step {self.step}"
        stacks = self.run.folder / f"stacks_{processes.rank()}.txt"
        print(
            f"failed: {why}. {stacks} says where each thread was. "
            "The last checkpoint is kept; if steps take so long, raise trainer.step_timeout.",
            file=sys.stderr,
            flush=True,
        )
        try:
            with stacks.open("w", encoding="utf-8") as stream:
                faulthandler.dump_traceback(stream, all_threads=True)
            self.run.note(status="failed", why=why)
            for child in psutil.Process().children(recursive=True):
                child.kill()  # such as a loader's worker that hangs, and would outlive us
        finally:
            os._exit(1)  # the main thread cannot be asked


class GradualUnfreezing(TrainerCallback):
    """Lets each part of a model train from its epoch on, from the top (Howard and Ruder 2018).

    Until then it has no gradient, and no optimizer moves it.
    """

    def __init__(self, model: PreTrainedModel, layers: int) -> None:
        """`layers` more from the top in each epoch; what is frozen now stays so."""
        starts = unfreezing(model, layers)
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


class OfEpochs(Protocol):
    """Rows in an order of their own in every epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counting from 0."""


class EpochOrder(TrainerCallback):
    """Tells a sampler or a stream its epoch before the epoch is read.

    transformers tells it too, but not through the two shells that several processes and a resumed epoch put around it.
    """

    def __init__(self, rows: OfEpochs) -> None:
        self.rows = rows

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.rows.set_epoch(int(state.epoch or 0))
