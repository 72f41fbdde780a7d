"""What a task that reads conversations keeps of its training rows: the tokenizer with its chat template."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmft.models import tokenizer as tokenizers
from llmft.models.build import longest
from llmft.models.special import GPT
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.chat_template import ChatTemplate
from llmft.tasks.conversations import Form, Unfit
from llmft.tasks.facts import read_facts, write_facts
from llmft.tasks.own_template import Name, give_template, own_template


@dataclass
class ChatState:
    """The tokenizer with its chat template, and how long conversations may be."""

    tokenizer: PreTrainedTokenizerFast
    max_length: int
    form: str
    """How the training rows hold conversations."""
    asking: bool = False
    """Whether rows are asked for an answer, and have none."""

    @classmethod
    def fit(cls, form: Form, texts: Iterable[str], wanted: Name | None, max_length: int, model: ModelConfig) -> Self:
        """The state for rows of a form.

        Args:
            texts: all that is said in them, for a model without a tokenizer.
            wanted: the form of conversations for a tokenizer without a chat template.

        Raises:
            UserError: for a tokenizer whose template answers can't be learnt from.
        """
        tokenizer = tokenizers.load(model, texts, GPT)
        give_template(tokenizer, wanted or ("plain" if form.answer else None), model)
        state = cls(tokenizer, longest(max_length, model), form.about)
        try:
            state.template  # noqa: B018
        except Unfit as error:
            problem = Problem("model.tokenizer", str(error), hint="Choose a model with another template.")
            raise UserError(problem, "the data") from error
        return state

    @cached_property
    def template(self) -> ChatTemplate:
        """The tokenizer's chat template."""
        return ChatTemplate(self.tokenizer)

    def needed(self) -> dict[str, Any]:
        """What the configuration of a model says for this tokenizer and these lengths."""
        tokenizer = self.tokenizer
        special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": self.template.end}
        if tokenizer.bos_token_id is not None:
            special["bos_token_id"] = tokenizer.bos_token_id
        return special | {"vocab_size": len(tokenizer), "max_position_embeddings": self.max_length}

    def notes(self) -> list[str]:
        """What was learnt that the user should know, a line each."""
        notes = [f"rows are read as {self.form}"]
        if own := own_template(self.tokenizer):
            notes.append(f"the tokenizer has no chat template: conversations are written as task.template={own}")
        return notes + self.template.notes()

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        write_facts(folder, {"max_length": self.max_length, "form": self.form})

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), **read_facts(folder))
