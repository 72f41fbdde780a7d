"""The section `task` of preference tuning."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from llmft.schema.task import TINY_TRANSFORMER, TaskConfig


class Preference(TaskConfig):
    """Of two answers the better one, by direct preference optimisation (DPO)."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER | {"intermediate_size": 64}
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {"gpt2": TINY_TRANSFORMER}
    of_data: ClassVar[tuple[str, ...]] = ()
    exports: ClassVar[bool] = False
    prefixes: ClassVar[bool] = False
    refers: ClassVar[bool] = True
    files: ClassVar[str] = "dataset=json dataset.test=YOUR.jsonl"

    then: ClassVar[str] = "chat {run}"

    name: Literal["preference"] = "preference"
    """Of two answers the better one, by direct preference optimisation (DPO)."""

    max_length: int = Field(default=1024, ge=8, le=1048576)
    """Longer pairs lose the beginning of their prompt, the same for both answers; the share that is cut is printed."""

    beta: float = Field(default=0.1, gt=0)
    """How dear it is to leave the first weights: with a small one the answers may become quite others."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The share of rows that are taken to be the wrong way round."""

    template: Literal["plain", "chatml"] | None = None
    """The form of conversations for a tokenizer that has no chat template of its own, as of task=instruction."""

    @property
    def metric(self) -> str:
        return "accuracy"
