"""A causal language model: which token comes next?"""

import math
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy

from llmft.schema.model import GPT
from llmft.tasks.chat.chat_state import ChatState
from llmft.tasks.language_models import config as sections
from llmft.tasks.language_models.language_model import Example, Key, LanguageModel
from llmft.tasks.task import Answer

if TYPE_CHECKING:
    from datasets import Dataset


class CausalLm(LanguageModel):
    """How likely is a text, and how does it continue?"""

    config = sections.CausalLm
    special = GPT
    objective_class = "llmft.tasks.token_objectives:CausalObjective"
    head = "AutoModelForCausalLM"
    context = 1

    def model_kwargs(self) -> dict[str, Any]:
        # Without it, encoders such as BERT would see the tokens that they predict.
        return super().model_kwargs() | {"is_decoder": True}

    def stride(self) -> int:
        return self.state.block

    def example(self, tokens: numpy.ndarray, key: Key, other: numpy.ndarray | None) -> Example:
        """Each position predicts the token after it."""
        return {"input_ids": tokens[:-1], "labels": tokens[1:]}

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """Also the bits for each byte of text, which can be compared between tokenizers."""
        size = sum(len(text.encode()) for text in references["text"])
        return super().score(answers, references) | {"bits_per_byte": self.nats(answers) / math.log(2) / max(size, 1)}

    def chat_state(self) -> ChatState | None:
        return ChatState(self.state.tokenizer, self.state.block, "") if self.state.tokenizer.chat_template else None

    def prompt(self, text: str) -> list[int]:
        """As many of the last tokens as the model reads, after the token that the tokenizer puts before a text."""
        tokens = self.state.tokenizer.before_text + self.tokens([text])[0]
        return [self.state.start] if not tokens else tokens[-self.state.block :]

    def to_answer(self, output: Any) -> Answer:
        """The text that was written, up to the end of the document."""
        return {"answer": self.state.tokenizer.decode(list(takewhile(lambda token: token != self.state.end, output)))}
