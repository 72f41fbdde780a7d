"""The problems by their names, and what tasks that answer them have in common."""

from dataclasses import asdict, replace
from typing import Any, Protocol, Self, TypeVar, cast

import numpy
import torch
from datasets import Dataset

from llmft.schema.column import Column
from llmft.tasks.targets.config import TargetConfig, label_name
from llmft.tasks.targets.multi_label import MultiLabel
from llmft.tasks.targets.regression import Regression
from llmft.tasks.targets.single_label import SingleLabel
from llmft.tasks.targets.target import Target
from llmft.tasks.task import Answer, RowScore, State, Task

PROBLEMS: dict[str, type[Target]] = {kind.problem: kind for kind in (SingleLabel, MultiLabel, Regression)}


def fit(train: Dataset, options: TargetConfig) -> Target:
    """What the column `label` of the training rows says.

    Raises:
        UserError: if it holds nothing that could be told apart.
    """
    return PROBLEMS[options.problem].fit(train["label"][:], options)


def column(options: TargetConfig) -> Column:
    """How the cells of `label` are read."""
    return PROBLEMS[options.problem].column(options)


def to_facts(target: Target) -> dict[str, Any]:
    """A target as JSON holds it."""
    return {"problem": target.problem, **asdict(target)}


def from_facts(facts: dict[str, Any]) -> Target:
    """Take what `to_facts` made out of the facts of a task.json; those of format 1 had labels alone.

    Labels of earlier versions may be called `True` and `False`, as Python writes them.
    """
    found = dict(facts.pop("target", None) or {"problem": "single_label", "labels": facts.pop("labels")})
    if "labels" in found:
        found["labels"] = list(map(label_name, found["labels"]))
    return PROBLEMS[found.pop("problem")](**found)


class HasTarget(State, Protocol):
    """A state that knows the column `label`."""

    target: Target


S = TypeVar("S", bound=HasTarget)


class TargetTask(Task[S]):
    """A task whose model has one output a label, or one for a number."""

    options: Any
    """The section of the task, which is a TargetConfig, too."""

    def loss(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return self.state.target.loss(model(**inputs).logits.float(), batch["labels"], self.options)

    def row_weights(self, labels: torch.Tensor) -> torch.Tensor | None:
        return self.state.target.row_weights(labels)

    def notes_of_rows(self, rows: Dataset, split: str) -> list[str]:
        if split != "train" or "label" not in rows.column_names:
            return []
        return self.state.target.notes(rows["label"][:], self.options)

    @property
    def calibrates(self) -> bool:
        return self.options.calibrate or isinstance(self.options.threshold, str)

    def calibrate(self, outputs: list[Any], references: Dataset) -> Self:
        return self._with(self.state.target.calibrate(_logits(outputs), references["label"][:], self.options))

    def label_thresholds(self) -> dict[str, float]:
        return self.state.target.label_thresholds()

    def uncalibrated(self) -> Self:
        return self._with(self.state.target.uncalibrated())

    def _with(self, target: Target) -> Self:
        return self.with_state(cast("S", replace(cast("Any", self.state), target=target)))

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        return self.state.target.decode(_logits(outputs))

    def export_outputs(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.state.target.export_outputs(logits)

    def formula(self) -> str:
        return self.state.target.formula()

    def describe_answers(self) -> str:
        return self.state.target.describe_answers()

    def error_score(self, answer: Answer, reference: Any) -> float:
        """How far off a number is, or how sure a wrong label or one that is left out."""
        said, scores = answer["answer"], answer.get("scores", {})
        if reference is None:
            return 0.0
        if isinstance(said, float):
            return abs(said - reference)
        if isinstance(said, list):
            wrong, missed = set(said) - set(reference), set(reference) - set(said)
            unsure = (*(scores.get(name, 0.0) for name in wrong), *(1 - scores.get(name, 0.0) for name in missed))
            return max(unsure, default=0.0)
        return super().error_score(answer, reference)

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """Whether a label, or all labels of the row, are right; of a number the absolute error."""
        said = answer["answer"]
        if self.options.problem == "regression":
            return RowScore("mae", abs(said - reference))
        if isinstance(said, list):
            return RowScore("subset_accuracy", float(set(said) == set(reference)))
        return super().row_score(answer, reference)

    def format_error(self, badness: float) -> str:
        return self.format_answer(badness) if self.options.problem == "regression" else f"{100 * badness:.1f}%"

    def format_answer(self, answer: Any) -> str:
        if isinstance(answer, float):
            return f"{answer:,.4g}"
        return (", ".join(answer) or "–") if isinstance(answer, list) else str(answer)

    def score(self, answers: list[Answer], references: Dataset) -> dict[str, Any]:
        return self.state.target.score(answers, references["label"][:])


def _logits(outputs: list[Any]) -> numpy.ndarray:
    return numpy.asarray(outputs, dtype=numpy.float64)
