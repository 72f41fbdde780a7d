"""The section `task` of causal language models."""

from typing import ClassVar, Literal

from llmft.schema.language_model import LanguageModelConfig


class CausalLm(LanguageModelConfig):
    """The next token of a text: a model that goes on with what it is given."""

    then: ClassVar[str] = "finetune +recipe=llm_instruct model.path={run} dataset=json dataset.train=YOUR.jsonl"

    name: Literal["causal_lm"] = "causal_lm"
    """The next token of a text: a model that goes on with what it is given."""

    @property
    def headline(self) -> str:
        """The one number that does not depend on the tokenizer."""
        return "bits_per_byte"
