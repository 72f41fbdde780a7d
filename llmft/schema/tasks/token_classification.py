"""The section `task` of token classification."""

from collections import Counter
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from llmft.schema.task import TINY_TRANSFORMER, TaskConfig


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
