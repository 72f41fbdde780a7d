"""What tasks that read conversations learn: the tokenizer with its chat template, and the system prompt."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, Self

from llmft.schema.model import GPT, ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.chat.chat_template import ChatTemplate, TemplateName, give_template, own_template
from llmft.tasks.chat.conversations import Conversation, Form, Message, Unfit, text_of
from llmft.tasks.task import State
from llmft.tasks.tokenizer import Tokenizer


@dataclass
class ChatState(State):
    """The tokenizer with its chat template, and the limit of lengths."""

    tokenizer: Tokenizer
    max_length: int
    form: str
    """The form in which training rows hold conversations, in a few words."""
    system: str = ""
    """The system prompt, if all training rows have the same: rows of predict get it, too."""
    remarks: list[str] = field(default_factory=list)
    """What the user should know of the tokenizer, a line each."""

    @classmethod
    def fit(
        cls,
        form: Form,
        talks: Callable[[], Iterable[Conversation]],
        wanted: TemplateName | None,
        length: int,
        model: ModelConfig,
    ) -> Self:
        """Learn from rows of a form.

        Args:
            talks: the conversations of all rows; called twice, for training a tokenizer and for the first SAMPLE rows.
            length: the most tokens of a conversation.
            wanted: `task.template`, for a tokenizer without a chat template.

        Raises:
            UserError: for a chat template whose answers cannot be trained on.
        """
        from llmft.models.build import clip_length
        from llmft.models.tokenizers import SAMPLE, load, unwritable

        tokenizer = load(model, (text_of(message) for talk in talks() for message in talk.messages), GPT)
        give_template(tokenizer, wanted or ("plain" if form.answer else None), model)
        sample = list(islice(talks(), SAMPLE))
        heads = {_system(talk.messages) for talk in sample}
        answers = [message["content"] for talk in sample for message in talk.messages if message["role"] == "assistant"]
        remarks = unwritable("the answers", answers, tokenizer)
        system = heads.pop() if len(heads) == 1 else ""
        state = cls(tokenizer, clip_length(length, model), form.about, system, remarks)
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

    def model_kwargs(self) -> dict[str, Any]:
        """The model's configuration for this tokenizer and this length."""
        tokenizer = self.tokenizer
        special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": self.template.end}
        if tokenizer.bos_token_id is not None:
            special["bos_token_id"] = tokenizer.bos_token_id
        return special | {"vocab_size": len(tokenizer), "max_position_embeddings": self.max_length}

    def to_prompt(self, talk: Conversation) -> Conversation:
        """The prompt: the conversation without its last answer, with the system prompt of training if it has none."""
        talk = talk.question()
        if not self.system or talk.messages[0]["role"] == "system":
            return talk
        return replace(talk, messages=[{"role": "system", "content": self.system}, *talk.messages])

    def answer(self, ids: list[int]) -> str:
        """The text that was written before the end of the turn."""
        end = ids.index(self.template.end) if self.template.end in ids else len(ids)
        return str(self.tokenizer.decode(ids[:end], skip_special_tokens=True)).strip()

    @property
    def description(self) -> str:
        return f"conversations of at most {self.max_length:,} tokens"

    @property
    def notes(self) -> list[str]:
        notes = [f"rows are read as {self.form}"]
        if own := own_template(self.tokenizer):
            notes.append(f"the tokenizer has no chat template: conversations are written as task.template={own}")
        if self.system:
            notes.append(f"the system prompt of all rows is kept for predict and chat: {_short(self.system)}")
        return notes + self.remarks + self.template.notes()


def _system(messages: list[Message]) -> str:
    return str(messages[0]["content"]) if messages[0]["role"] == "system" else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:60]}…"
