"""What a person sees while a model trains: a bar on a terminal, lines in a log; and every step in events.jsonl."""

import math
import sys
import time
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmft.reporting.duration import duration
from llmft.runs.folder import Run
from llmft.schema.metric import METRICS
from llmft.schema.problem import Failure
from llmft.training.evaluation import ties_with_less_loss


def lost(name: str, value: float, step: int) -> str:
    """What to say of a number that is none."""
    return f"{name} is {value} at step {step}; the weights are lost. A smaller optimizer.lr, or more warm-up, may help."


class Progress(TrainerCallback):
    """Writes each logged step and evaluation to the run folder and shows them."""

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
