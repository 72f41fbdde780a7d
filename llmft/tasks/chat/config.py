"""The sections of the tasks on conversations: instruction and preference."""

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig


class Instruction(TaskConfig):
    """Instruction tuning: answers to instructions, or turns of a chat."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER | {"intermediate_size": 64}
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {"gpt2": TINY_TRANSFORMER}
    of_data: ClassVar[tuple[str, ...]] = ("answer_pattern",)
    exports: ClassVar[bool] = False
    packs: ClassVar[bool] = True
    prefixes: ClassVar[bool] = False
    files: ClassVar[str] = "dataset=json dataset.test=YOUR.jsonl"

    then: ClassVar[str] = "chat {run}"

    name: Literal["instruction"] = "instruction"
    """Instruction tuning: answers to instructions, or turns of a chat."""

    max_length: int = Field(default=1024, ge=8, le=1048576)
    """Largest number of tokens in a conversation. Longer ones lose their beginning, so that the last answer stays; the
    share that is cut is printed."""

    train_on: Literal["answers", "all"] = "answers"
    """The tokens that the loss counts: those of the `answers`, each with its end-of-turn token, or `all`."""

    template: Literal["plain", "chatml"] | None = None
    """The chat template for a tokenizer that has none. `plain`: a line break after each prompt and the end-of-text
    token after each answer. `chatml`: the ChatML format. Unset: `plain` if rows are a prompt and a response."""

    generate: bool = False
    """Generate an answer to each validation and test row, as the section `generation` says, and compute exact match and
    ROUGE. Otherwise the metrics are loss and perplexity of the reference answers, which takes a fraction of the
    time."""

    answer_pattern: str | None = None
    """A regular expression for the part of an answer that exact match compares: the first group of its last match. For
    GSM8K `'#### (.+)'`. Unset: the whole answer."""

    @field_validator("answer_pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"must be a regular expression ({error})") from error
            if not groups:
                raise ValueError("must have a group around the part that counts, such as '#### (.+)'")
        return pattern

    @property
    def generates(self) -> bool:
        return self.generate

    @property
    def headline(self) -> str:
        return "exact_match" if self.generate else "perplexity"


class Preference(TaskConfig):
    """Preference tuning by direct preference optimization (DPO): of two answers, prefer the better one."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER | {"intermediate_size": 64}
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {"gpt2": TINY_TRANSFORMER}
    of_data: ClassVar[tuple[str, ...]] = ()
    exports: ClassVar[bool] = False
    prefixes: ClassVar[bool] = False
    refers: ClassVar[bool] = True
    files: ClassVar[str] = "dataset=json dataset.test=YOUR.jsonl"

    then: ClassVar[str] = "chat {run}"

    name: Literal["preference"] = "preference"
    """Preference tuning by direct preference optimization (DPO): of two answers, prefer the better one."""

    max_length: int = Field(default=1024, ge=8, le=1048576)
    """Largest number of tokens in a prompt with an answer. Longer pairs lose the beginning of their prompt, the same
    for both answers; the share that is cut is printed."""

    beta: float = Field(default=0.1, gt=0)
    """How strongly DPO holds the model to its weights before training, the beta of its loss. A large beta keeps answers
    close to those of the starting model; a small one lets them change more. Values from 0.01 to 0.5 are usual; lower it
    if accuracy hardly rises, raise it if answers degenerate."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The assumed share of rows in which the two answers are swapped by mistake. Above 0, the loss trusts each row
    less."""

    template: Literal["plain", "chatml"] | None = None
    """The chat template for a tokenizer that has none, as in task=instruction."""

    @property
    def metric(self) -> str:
        return "accuracy"
