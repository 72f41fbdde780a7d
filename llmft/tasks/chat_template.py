"""From messages to the tokens of the model's chat template, and which of them are the answers'."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from llmft.models.labelled import IGNORED
from llmft.tasks.conversations import Message, Unfit, question

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # what some templates mark answers by
PROBE = ("Cinnabar?", "Larkspur.", "Quillwort?", "Samphire.")  # questions and answers that no template writes by itself


@dataclass(frozen=True)
class Tokens:
    """A conversation as the model sees it."""

    ids: list[int]
    labels: list[int]
    """The ids of what is trained, IGNORED elsewhere."""
    cut: bool
    """Whether there was no room for its beginning."""


class ChatTemplate:
    """The chat template of a tokenizer, with what made-up conversations show of it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Raises Unfit where the tokenizer has no template, or one that closes no answer."""
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise Unfit("the tokenizer has no chat template")
        self.source = tokenizer.get_chat_template()
        self.marks = bool(GENERATION.search(self.source))
        control = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self.control = re.compile("|".join(map(re.escape, control)) or "(?!)")
        short, long = (self.text(_probe(count)) for count in (2, 4))
        self.end, self.end_text = self._end_of_turn(short)
        closed = short[: self._closing(short, short.rindex(PROBE[1]))]
        self.rewrites = not self.marks and not long.startswith(closed)
        """Whether it writes an answer otherwise once the conversation has gone on."""

    def _end_of_turn(self, text: str) -> tuple[int, str]:
        """The token that closes the last answer of a text, and how the template writes it."""
        tail = text[text.rindex(PROBE[1]) + len(PROBE[1]) :]
        added = self.tokenizer.added_tokens_decoder
        for token in self.tokenizer(tail, add_special_tokens=False)["input_ids"]:
            if token in added and not added[token].content.isspace():
                return token, added[token].content
        raise Unfit(f"the chat template closes an answer with {tail!r}, no end-of-turn token: it would never end")

    def _closing(self, text: str, start: int) -> int:
        """Where the answer that begins at `start` ends, its end of turn included; the end of the text without one."""
        end = text.find(self.end_text, start)
        return len(text) if end < 0 else end + len(self.end_text)

    def notes(self) -> list[str]:
        """What the template does that the user should know, a line each."""
        notes = []
        if own := self._own_system():
            notes.append(f"the chat template begins conversations without a system message with its own: {own!r}")
        if self.rewrites:
            what = "the chat template writes an answer otherwise once the conversation goes on"
            notes.append(f"{what}: only the last answer of each is trained")
        if "strftime_now" in self.source:
            notes.append("the chat template writes today's date: on another day the same row has other tokens")
        return notes

    def _own_system(self) -> str:
        """The system prompt that the template adds where there is none."""
        user = _probe(1)
        try:
            given = self.text([{"role": "system", "content": PROBE[2]}, *user])
        except Unfit:
            return ""  # it takes none
        before, between = given.partition(PROBE[0])[0].split(PROBE[2], 1)
        head = self.text(user).partition(PROBE[0])[0]
        found = head.startswith(before) and head.endswith(between)
        return head[len(before) : len(head) - len(between)].strip() if found else ""

    def prompt(self, messages: list[Message]) -> str:
        """The text after which the model is to answer."""
        return self.text(messages, add_generation_prompt=True)

    def text(self, messages: list[Message], **options: Any) -> str:
        """The text of a conversation, by the template.

        Raises:
            Unfit: where the template refuses it, with its own words, or does not write what a message says.
        """
        for number, message in enumerate(messages, 1):
            if held := self.control.search(message["content"]):
                raise Unfit(f"message {number} holds {held[0]}, a control token of the model")
        try:
            text = str(self.tokenizer.apply_chat_template(messages, tokenize=False, **options))
        except Exception as error:  # a template is a program of others
            raise Unfit(f"the chat template refuses it: {error}") from error
        for number, message in enumerate(messages, 1):
            if message["content"].strip() not in text:
                raise Unfit(f"the chat template does not write message {number} ({message['role']}) as it is")
        return text

    def answers(self, messages: list[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and where the answers lie in it that are trained, each with its end of turn.

        They are what the template marks by `{% generation %}`. Where it marks nothing, an answer is what follows the
        text that asks for it.

        Raises:
            Unfit: where they can't be told, or an answer is not closed by the end of turn.
        """
        text = self.text(messages)
        spans = self._marked(messages, text) if self.marks else self._after_prompts(messages, text)
        if not spans:
            raise Unfit("the chat template marks no answer, so nothing would be trained")
        for start, end in spans:
            if not text[start:end].endswith(self.end_text):
                what = f"{self.end_text}, the end-of-turn token, is not trained after {text[start:end][-20:]!r}"
                raise Unfit(f"{what}: the model would not learn to stop")
        return text, spans

    def _after_prompts(self, messages: list[Message], text: str) -> list[tuple[int, int]]:
        """Each answer from the end of its prompt, which must be how the text begins, to its end of turn."""
        places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        spans = []
        for place in places[-1:] if self.rewrites else places:
            before = self.prompt(messages[:place])
            if not text.startswith(before):
                raise Unfit(f"the chat template writes what stands before message {place + 1} otherwise after it")
            end = self._closing(text, len(before))
            if messages[place]["content"].strip() not in text[len(before) : end]:
                raise Unfit(f"the chat template does not write message {place + 1} (assistant) as it is")
            spans.append((len(before), end))
        return spans

    def _marked(self, messages: list[Message], text: str) -> list[tuple[int, int]]:
        """What stands between `{% generation %}` and `{% endgeneration %}`, without the space at its end."""
        special = self.tokenizer.special_tokens_map
        _, found = render_jinja_template(
            [messages], chat_template=self.source, return_assistant_tokens_mask=True, **special
        )
        return [(start, start + len(text[start:end].rstrip())) for start, end in found[0] if text[start:end].strip()]

    def encode(self, messages: list[Message], train_on: Literal["answers", "all"], max_length: int) -> Tokens:
        """The last `max_length` tokens of a conversation that ends with an answer.

        A token is an answer's if it holds one of its characters: a tokenizer may join the first of them to what
        stands before.

        Raises:
            Unfit: as `answers` does.
        """
        text, spans = self.answers(messages)
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = found["input_ids"]
        labels = [
            token if train_on == "all" or any(start < last and first < end for first, last in spans) else IGNORED
            for token, (start, end) in zip(ids, found["offset_mapping"], strict=True)
        ]
        return Tokens(ids[-max_length:], labels[-max_length:], len(ids) > max_length)

    def ask(self, messages: list[Message], max_length: int) -> Tokens:
        """The last `max_length` tokens of what the model is to answer; none of them has a label.

        Raises:
            Unfit: as `text` does.
        """
        ids: list[int] = self.tokenizer(self.prompt(question(messages)), add_special_tokens=False)["input_ids"]
        kept = ids[-max_length:]
        return Tokens(kept, [IGNORED] * len(kept), len(ids) > max_length)


def _probe(count: int) -> list[Message]:
    return [{"role": ("user", "assistant")[place % 2], "content": PROBE[place]} for place in range(count)]
