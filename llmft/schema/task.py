"""The section `task`: one model a task, found by its name. A task of another package comes by an entry point."""

from collections import Counter
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from llmft.schema.metric import METRICS
from llmft.schema.plugins import plugins
from llmft.schema.section import Section
from llmft.schema.target import TargetConfig


class TaskConfig(Section):
    """What every task has."""

    name: str
    """The task: what goes in, what comes out, how it is scored."""

    tiny: ClassVar[dict[str, Any]] = {}
    """Sizes of the random model that `smoke=true` trains."""

    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {}
    """The same for architectures that call their sizes otherwise."""

    of_data: ClassVar[tuple[str, ...]] = ("labels", "class_weights")
    """Keys that speak of the user's own rows: `smoke=true` forgets them together with the rows."""

    @property
    def metric(self) -> str:
        """The metric that picks the best checkpoint unless `trainer.metric_for_best` says otherwise."""
        return "loss"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the task can have."""
        return tuple(METRICS)


# Sizes under the names that transformers maps to each architecture's own (DistilBERT calls `hidden_size` `dim`).
TINY_TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


class TextClassification(TargetConfig, TaskConfig):
    """A label, several labels or a number for a text or a pair of texts."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER

    name: Literal["text_classification"] = "text_classification"
    """A label, several labels or a number for a text or a pair of texts."""

    max_length: int = Field(default=128, ge=4, le=131072)
    """Longer inputs are cut to this many tokens; the share that is cut is printed."""


class Tabular(TargetConfig, TaskConfig):
    """A label, several labels or a number for a row of a table."""

    best: ClassVar[dict[str, str]] = TargetConfig.best | {"regression": "r2"}
    tiny: ClassVar[dict[str, Any]] = {"hidden_sizes": [16], "dropout": 0.0}
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {"linear": {}, "ft_transformer": TINY_TRANSFORMER}
    of_data: ClassVar[tuple[str, ...]] = ("labels", "class_weights", "numbers", "categories", "dates", "ignore")

    name: Literal["tabular"] = "tabular"
    """A label, several labels or a number for a row of a table."""

    numbers: list[str] = Field(default_factory=list)
    """Columns where any value that is no number is an error. Others count as numbers if all their values are."""

    categories: list[str] = Field(default_factory=list)
    """Columns that are categories although their values look like numbers, such as postal codes."""

    dates: list[str] = Field(default_factory=list)
    """Columns where any value that is no date is an error. Others count as dates if all their values are."""

    ignore: list[str] = Field(default_factory=list)
    """Columns to leave out. Left out without asking: those of one value, and those that number the rows."""

    scaling: Literal["standard", "quantile"] = "standard"
    """Numbers by mean and deviation, or by quantiles to the normal distribution, which tames long tails."""

    min_count: int = Field(default=2, ge=1)
    """A category in fewer training rows than this counts as unseen."""

    @model_validator(mode="after")
    def _one_kind_a_column(self) -> Self:
        chosen = Counter([*self.numbers, *self.categories, *self.dates, *self.ignore])
        if twice := [name for name, count in chosen.items() if count > 1]:
            raise ValueError(f"names {', '.join(map(repr, twice))} twice among numbers, categories, dates and ignore")
        return self


def task_types() -> dict[str, type[TaskConfig]]:
    """The tasks of this package by name, in the order of this file."""
    return {t.model_fields["name"].default: t for t in TaskConfig.__subclasses__() if t.__module__ == __name__}


def task_type(name: str) -> type[TaskConfig] | None:
    """The section of the task called `name`: ours, or the `config` of an entry point in the group `llmft.tasks`."""
    if name in (ours := task_types()):
        return ours[name]
    found = plugins("llmft.tasks").get(name)
    return found.load().config if found else None


def task_names() -> list[str]:
    """Every task that can be named, those of other packages included."""
    return [*task_types(), *sorted(plugins("llmft.tasks"))]
