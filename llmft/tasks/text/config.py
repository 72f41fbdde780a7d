"""The sections of the tasks on texts."""

from collections import Counter
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from llmft.schema.metric import METRICS_OF
from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig
from llmft.tasks.targets.config import TargetConfig


class TextClassification(TargetConfig, TaskConfig):
    """A label, several labels or a number for a text or a pair of texts."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER

    name: Literal["text_classification"] = "text_classification"
    """A label, several labels or a number for a text or a pair of texts."""

    max_length: int = Field(default=128, ge=4, le=131072)
    """Longer inputs are cut to this many tokens; the share that is cut is printed."""

    baseline: bool | None = None
    """Fit TF-IDF with logistic regression (for numbers, ridge regression) to the same rows, and show its scores beside
    those of the model. Unset: for up to 50,000 training rows that are not streamed, in a sweep once for each set."""


class TokenClassification(TaskConfig):
    """Which words of a text name something, and what: entities, each a few words with a label."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER
    of_data: ClassVar[tuple[str, ...]] = ("labels",)
    exports: ClassVar[bool] = False
    files: ClassVar[str] = "dataset=conll dataset.test=YOUR.conll"
    answered: ClassVar[tuple[str, ...]] = ("answer", "tokens", "tags", "error")

    name: Literal["token_classification"] = "token_classification"
    """Which words of a text name something, and what: entities, each a few words with a label."""

    labels: list[str] | None = Field(default=None, min_length=1)
    """All labels of entities, such as `[person, place]`. Unset: those of the training split, sorted."""

    max_length: int = Field(default=256, ge=8, le=131072)
    """Texts of more tokens are read in windows of this many; nothing is cut off."""

    stride: int = Field(default=32, ge=0)
    """Tokens that a window shares with the one before it. A word is answered by the one that shows more around it."""

    @property
    def metric(self) -> str:
        return "f1"

    @model_validator(mode="after")
    def _labels_are_told_apart(self) -> Self:
        if self.labels and (twice := [label for label, count in Counter(self.labels).items() if count > 1]):
            raise ValueError(f"labels has {', '.join(map(repr, twice))} twice")
        return self

    @model_validator(mode="after")
    def _windows_move_on(self) -> Self:
        if 2 * self.stride > self.max_length:
            raise ValueError(f"stride={self.stride} is more than half of max_length={self.max_length}")
        return self


class RelationExtraction(TargetConfig, TaskConfig):
    """How two marked parts of a text are related."""

    # Relations are rarely of one size, and most sets have a large `Other`, which accuracy would be about.
    best: ClassVar[dict[str, str]] = {"single_label": "f1"}
    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER

    name: Literal["relation_extraction"] = "relation_extraction"
    """How two marked parts of a text are related, the direction included."""

    problem: Literal["single_label"] = "single_label"
    """One relation a row, or a label such as `Other` for none."""

    max_length: int = Field(default=128, ge=8, le=131072)
    """Longer inputs are cut to this many tokens around the two entities; the share that is cut is printed."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of one label, and SemEval's."""
        return tuple(METRICS_OF[self.name])


class QuestionAnswering(TaskConfig):
    """The part of a text that answers a question."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER
    exports: ClassVar[bool] = False
    streams: ClassVar[bool] = False
    files: ClassVar[str] = "dataset=squad dataset.test=YOUR.json"

    name: Literal["question_answering"] = "question_answering"
    """The part of a text that answers a question."""

    max_length: int = Field(default=256, ge=16, le=131072)
    """Tokens of a question and a part of its context. A longer context is read in several windows; a question may fill
    half, and the rest of it is cut."""

    stride: int = Field(default=64, ge=0)
    """Tokens that two windows of a long context share; an answer that is longer may be whole in none of them."""

    max_answer_length: int = Field(default=30, ge=1)
    """No answer has more tokens than this."""

    unanswerable: bool = False
    """Whether a context may hold no answer; the right answer is then empty. How sure the model must be of that is
    learnt from the validation rows."""

    @property
    def metric(self) -> str:
        """The metric that picks the best checkpoint unless `trainer.metric_for_best` says otherwise."""
        return "f1"

    @model_validator(mode="after")
    def _windows_move_on(self) -> Self:
        if self.stride >= least_context(self.max_length):
            raise ValueError(f"stride={self.stride} is not below half of max_length={self.max_length}")
        return self


def least_context(max_length: int) -> int:
    """The tokens that are left for the context beside the longest question."""
    return max_length // 2
