"""The sections of the tasks on conversations."""

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig


class Instruction(TaskConfig):
    """Answers to instructions, and turns of a chat."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER | {"intermediate_size": 64}
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {"gpt2": TINY_TRANSFORMER}
    of_data: ClassVar[tuple[str, ...]] = ("answer_pattern",)
    exports: ClassVar[bool] = False
    packs: ClassVar[bool] = True
    prefixes: ClassVar[bool] = False
    files: ClassVar[str] = "dataset=json dataset.test=YOUR.jsonl"

    then: ClassVar[str] = "chat {run}"

    name: Literal["instruction"] = "instruction"
    """Answers to instructions, and turns of a chat."""

    max_length: int = Field(default=1024, ge=8, le=1048576)
    """Longer conversations lose their beginning, so that the last answer stays; the share that is cut is printed."""

    train_on: Literal["answers", "all"] = "answers"
    """Which tokens have a loss: those of the `answers`, each with its end of turn, or `all`."""

    template: Literal["plain", "chatml"] | None = None
    """The form of conversations for a tokenizer that has no chat template of its own: `plain`, a line break after
    what is asked and the end-of-text token after an answer, or `chatml`. Unset: `plain` for prompt and response."""

    generate: bool = False
    """Write an answer to each validation and test row, by the section `generation`, and score it by exact match and
    ROUGE. Without it, scores are those of the given answers: loss and perplexity."""

    answer_pattern: str | None = None
    """A regular expression for what of an answer counts in an exact match: its last place in it, of that the first
    group. `'#### (.+)'` for GSM8K. Unset: all of it."""

    @field_validator("answer_pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"is not a regular expression: {error}") from error
            if not groups:
                raise ValueError("has no group: put what counts into brackets, such as '#### (.+)'")
        return pattern

    @property
    def generates(self) -> bool:
        return self.generate

    @property
    def headline(self) -> str:
        return "exact_match" if self.generate else "perplexity"


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
