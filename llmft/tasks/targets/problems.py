"""The problems by name, and what their tasks share: a state with a target, and a task with one output a label."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy

from llmft.schema.column import Column
from llmft.tasks.targets.config import TargetConfig, label_name
from llmft.tasks.targets.multi_label import MultiLabel
from llmft.tasks.targets.regression import Regression
from llmft.tasks.targets.single_label import SingleLabel
from llmft.tasks.targets.target import Target
from llmft.tasks.task import Answer, RowScore, State, Task

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

PROBLEMS: dict[str, type[Target]] = {kind.problem: kind for kind in (SingleLabel, MultiLabel, Regression)}


def fit(train: "Dataset", options: TargetConfig) -> Target:
    """Learn from the column `label` of the training rows.

    Raises:
        UserError: if it holds one label, or one number, only.
    """
    return PROBLEMS[options.problem].fit(train["label"][:], options)


def column(options: TargetConfig) -> Column:
    """The role `label`: how its cells are read."""
    return PROBLEMS[options.problem].column(options)


def to_facts(target: Target) -> dict[str, Any]:
    """A target as JSON holds it."""
    return {"problem": target.problem, **asdict(target)}


def from_facts(facts: dict[str, Any]) -> Target:
    """Remove the target from the facts of a task.json and return it; format 1 had a list of labels.

    Earlier versions may have saved the labels `True` and `False`, as Python writes them.
    """
    found = dict(facts.pop("target", None) or {"problem": "single_label", "labels": facts.pop("labels")})
    if "labels" in found:
        found["labels"] = list(map(label_name, found["labels"]))
    return PROBLEMS[found.pop("problem")](**found)


@dataclass
class TargetState(State):
    """What was learned of the column `label`; a task adds its fields."""

    target: Target

    @property
    def description(self) -> str:
        return self.target.describe_answers()

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"target": to_facts(self.target)}

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> dict[str, Any]:
        return {"target": from_facts(facts), **facts}


S = TypeVar("S", bound=TargetState)


class TargetTask(Task[S]):
    """A task whose model has one output a label, or one for a number."""

    options: Any
    """The section of the task, which is a TargetConfig, too."""
    objective_class = "llmft.tasks.targets.losses:TargetObjective"

    def notes_on(self, rows: "Dataset | None", split: str, features: "pyarrow.Table | None" = None) -> list[str]:
        """What is odd about the labels of the training rows."""
        if rows is None or split != "train" or "label" not in rows.column_names:
            return []
        return self.state.target.notes(rows["label"][:], self.options)

    @property
    def calibrates(self) -> bool:
        """Whether a temperature or a threshold is learned from validation rows."""
        return self.options.calibrate or isinstance(self.options.threshold, str)

    def calibrate(self, outputs: list[Any], references: "Dataset") -> Self:
        """The task with the temperature and thresholds of these rows."""
        return self.with_target(self.state.target.calibrate(_logits(outputs), references["label"][:], self.options))

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        return self.state.target.decode(_logits(outputs))

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """Whether a label, or all labels of the row, are right; of a number the absolute error.

        The error is the distance of a number, the score of a wrong label, or 1 minus the score of a missed one.
        """
        said, scores = answer["answer"], answer.get("scores", {})
        if isinstance(said, float):
            off = abs(said - reference)
            return RowScore("mae", off, error=off, why=self.format_answer(off))
        if not isinstance(said, list):
            return super().row_score(answer, reference)
        wrong, missed = set(said) - set(reference), set(reference) - set(said)
        unsure = (*(scores.get(name, 0.0) for name in wrong), *(1 - scores.get(name, 0.0) for name in missed))
        error = max(unsure, default=0.0)
        return RowScore("subset_accuracy", float(not unsure), error=error, why=f"{100 * error:.1f}%")

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        return self.state.target.score(answers, references["label"][:])


def _logits(outputs: list[Any]) -> numpy.ndarray:
    return numpy.asarray(outputs, dtype=numpy.float64)
