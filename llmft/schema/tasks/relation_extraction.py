"""The section `task` of relation extraction."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from llmft.schema.metric import METRICS_OF
from llmft.schema.target import TargetConfig
from llmft.schema.task import TINY_TRANSFORMER, TaskConfig


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
