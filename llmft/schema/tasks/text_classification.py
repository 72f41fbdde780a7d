"""The section `task` of text classification."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from llmft.schema.target import TargetConfig
from llmft.schema.task import TINY_TRANSFORMER, TaskConfig


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
