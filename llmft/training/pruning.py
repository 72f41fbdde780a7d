"""A trial of a search tells each validation score, and hears whether it is worth going on."""

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmft.schema.problem import Pruned

Report = Callable[[int, float], bool]
"""(percent of the trial's steps, score) -> whether to give the trial up."""


class Pruning(TrainerCallback):
    """Stops a trial once what it reports to says so."""

    def __init__(self, metric: str, report: Report) -> None:
        self.metric, self.report = metric, report

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        percent, score = round(100 * state.global_step / state.max_steps), metrics[f"eval_{self.metric}"]
        if math.isfinite(score) and self.report(percent, score):
            raise Pruned(f"{self.metric} {score:.4f} after {percent}% of its steps")
