"""The section `task` of extractive question answering."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from llmft.schema.task import TINY_TRANSFORMER, TaskConfig


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
