"""The chat template of a tokenizer: from messages to tokens with labels; one of ours if it has none."""

import inspect
import json
import re
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from tokenizers import Encoding

from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.schema.tasks import IGNORED
from llmft.tasks.chat.conversations import Conversation, Message, Unfit, ignore
from llmft.tasks.tokenizer import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # how some templates mark answers
KNOWN = {"role", "content"}
LINKS = {"tool_call_id", "id"}  # they name the call that a tool answers; most templates go by order
BESIDE = ("tools", "documents")
PROBE = ("Cinnabar?", "Larkspur.", "Quillwort?", "Samphire.")  # texts that no template contains


@dataclass(frozen=True)
class Tokens:
    """A conversation as the model reads it."""

    ids: list[int]
    labels: list[int]
    """The ids of the trained tokens, IGNORED elsewhere."""
    cut: bool
    """Whether its beginning was cut."""


class ChatTemplate:
    """The chat template of a tokenizer, and what probing it with made-up conversations shows."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises Unfit if the tokenizer has no template, or if its template does not end answers."""
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise Unfit("the tokenizer has no chat template")
        self.source = tokenizer.get_chat_template()
        self.marks = bool(GENERATION.search(self.source))
        # Parameters of `apply_chat_template` itself, such as `add_generation_prompt`, are not variables of a row.
        self.reserved = {*inspect.signature(tokenizer.apply_chat_template).parameters, "self", "messages"} - {*BESIDE}
        self.added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
        control = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self.control = re.compile("|".join(map(re.escape, control)) or "(?!)")
        short, long = (self._text(_probe(count)) for count in (2, 4))
        self.end, self.end_text = self._end_of_turn(short)
        closed = short[: self._closing(short, short.rindex(PROBE[1]))]
        self.rewrites = not self.marks and not long.startswith(closed)
        """Whether an answer is written differently once other turns follow."""

    def _end_of_turn(self, text: str) -> tuple[int, str]:
        """The token that ends the last answer of a text, and how the template writes it."""
        tail = text[text.rindex(PROBE[1]) + len(PROBE[1]) :]
        for token in self.encoding(tail).ids:
            if not self.added.get(token, " ").isspace():
                return token, self.added[token]
        raise Unfit(f"the chat template closes an answer with {tail!r}, no end-of-turn token: it would never end")

    def _closing(self, text: str, start: int) -> int:
        """The end of the answer that begins at `start`, with its end of turn; without one, the end of the text."""
        end = text.find(self.end_text, start)
        return len(text) if end < 0 else end + len(self.end_text)

    def notes(self) -> list[str]:
        """Notes on the template, a line each."""
        notes = []
        if own := self._own_system():
            notes.append(f"the chat template begins conversations without a system message with its own: {own!r}")
        if self.rewrites:
            what = "the chat template writes an answer otherwise once the conversation goes on"
            notes.append(f"{what}: only the last answer of each is trained, with the calls of tools that lead to it")
        if "strftime_now" in self.source:
            notes.append("the chat template writes today's date: on another day the same row has other tokens")
        return notes

    def _own_system(self) -> str:
        """The system prompt that the template adds to a conversation without one."""
        user = _probe(1)
        try:
            given = self._text(Conversation([{"role": "system", "content": PROBE[2]}, *user.messages]))
        except Unfit:
            return ""  # it refuses system prompts
        before, between = given.partition(PROBE[0])[0].split(PROBE[2], 1)
        head = self._text(user).partition(PROBE[0])[0]
        found = head.startswith(before) and head.endswith(between)
        return head[len(before) : len(head) - len(between)].strip() if found else ""

    def prompt(self, talk: Conversation) -> str:
        """The text that the model continues with its answer.

        Raises:
            Unfit: where the template refuses it, or does not write all that the conversation says.
        """
        self._check_written(talk)
        return self._text(talk, add_generation_prompt=True)

    def reply_prompt(self, talk: Conversation) -> str:
        """The text that the model continues in a conversation with earlier answers of its own.

        Unlike `prompt`, it allows a template that does not repeat all of them, such as the thought before an answer.

        Raises:
            Unfit: as `prompt` does.
        """
        self._check_written(talk)
        text = self.rendered(talk, add_generation_prompt=True)
        _check_contained(text, talk, {"assistant"})
        return text

    def encoding(self, text: str) -> Encoding:
        """The tokens of a text that the template has written, special tokens among them."""
        return self.tokenizer.encode([text], special=False, split_special=False)[0]

    def _text(self, talk: Conversation, **options: Any) -> str:
        """The text of a conversation, by the template.

        Raises:
            Unfit: where the template refuses it, with its own words, or does not write what a message says.
        """
        text = self.rendered(talk, **options)
        _check_contained(text, talk)
        return text

    def rendered(self, talk: Conversation, **options: Any) -> str:
        """The conversation as the template writes it; not checked for completeness.

        Raises:
            Unfit: where the template refuses it.
        """
        options = talk.given | options
        try:
            return str(self.tokenizer.apply_chat_template(talk.messages, tokenize=False, **options))
        except Exception as error:  # a template is a program of others
            why = error
        if any("tool_calls" in message for message in talk.messages):
            # Templates such as DeepSeek's concatenate the arguments of a call, which must then be a string.
            messages = [_with_texts(message) for message in talk.messages]
            with suppress(Exception):
                return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **options))
        raise Unfit(f"the chat template refuses it: {why}") from why

    def _check_written(self, talk: Conversation) -> None:
        """Raise Unfit for a control token in a text, and for content that the template silently drops."""
        if reserved := self.reserved & talk.given.keys():
            raise Unfit(f"chat_template_kwargs has {min(reserved)}, which is not a variable of a chat template")
        for number, message in enumerate(talk.messages, 1):
            self.check_control(message, f"message {number}")
            for key in sorted(message.keys() - KNOWN - LINKS):
                if not self._writes(talk, number, key):
                    what = f"message {number} has {key!r}, which the chat template does not write"
                    raise Unfit(what, ignore(key))
        self.check_control(talk.given, "the row")
        for name, value in talk.given.items():
            if name in BESIDE:
                text, without = (self.rendered(replace(talk, given=one)) for one in (talk.given, {}))
                named = [tool["function"]["name"] for tool in value] if name == "tools" else []
                read = text != without and all(one in text for one in named)
            else:
                read = re.search(rf"\b{re.escape(name)}\b", self.source) is not None
            if not read:
                column = name if name in BESIDE else "chat_template_kwargs"
                raise Unfit(f"has {name!r}, which the chat template does not write", ignore(column))

    def check_control(self, value: Any, place: str) -> None:
        """Raise Unfit for a control token in any text of a value: it would end the turn there."""
        if isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                self.check_control(part, place)
        elif isinstance(value, str) and (held := self.control.search(value)):
            raise Unfit(f"{place} holds {held[0]}, a control token of the model")

    def _writes(self, talk: Conversation, number: int, key: str) -> bool:
        """Whether the text up to a message, counted from 1, contains its value of `key`."""
        message = talk.messages[number - 1]
        bare = {name: value for name, value in message.items() if name != key}
        calls = [call["function"]["name"] for one in talk.messages for call in one.get("tool_calls", [])]
        if key == "name" and message["role"] == "tool" and message[key] in calls:
            return True  # the call itself contains it
        text = self.rendered(talk.until(number))
        try:
            without = self.rendered(replace(talk, messages=[*talk.messages[: number - 1], bare]))
        except Unfit:
            return True
        value = message[key]
        parts = [call["function"]["name"] for call in value] if key == "tool_calls" else [value]
        return text != without and all(part.strip() in text for part in parts if isinstance(part, str))

    def answers(self, talk: Conversation) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and the characters of the trained answers, each with its end of turn.

        They are what the template marks by `{% generation %}`. Where it marks nothing, an answer is what follows the
        text that asks for it: a thought and the tools that it calls are part of it.

        Raises:
            Unfit: where they cannot be told, or an answer is not closed by the end of turn.
        """
        self._check_written(talk)
        text = self._text(talk)
        spans = self._marked(talk, text) if self.marks else self._after_prompts(talk, text)
        if not spans:
            raise Unfit("the chat template marks no answer, so nothing would be trained")
        for start, end in spans:
            if not text[start:end].endswith(self.end_text):
                what = f"{self.end_text}, the end-of-turn token, is not trained after {text[start:end][-20:]!r}"
                raise Unfit(f"{what}: the model would not learn to stop")
        return text, spans

    def _after_prompts(self, talk: Conversation, text: str) -> list[tuple[int, int]]:
        """The characters of each answer, from the end of its prompt to its end of turn.

        An answer that the template writes otherwise once the conversation goes on is not trained: the text that it
        should follow does not stand there.
        """
        more = any(message.keys() - KNOWN for message in talk.messages)
        places = [place for place, message in enumerate(talk.messages) if message["role"] == "assistant"]
        spans = []
        for place in places:
            if place in talk.untrained:
                continue
            before = self._text(talk.until(place), add_generation_prompt=True)
            if (self.rewrites or more) and place != places[-1]:
                then = self._text(talk.until(place + 1))
                if not text.startswith(then[: self._closing(then, len(before))]):
                    continue
            if not text.startswith(before):
                raise Unfit(f"the chat template writes what stands before message {place + 1} otherwise after it")
            end = self._closing(text, len(before))
            if talk.messages[place]["content"].strip() not in text[len(before) : end]:
                raise Unfit(f"the chat template does not write message {place + 1} (assistant) as it is")
            spans.append((len(before), end))
        return spans

    def _marked(self, talk: Conversation, text: str) -> list[tuple[int, int]]:
        """The characters between `{% generation %}` and `{% endgeneration %}`, without trailing space."""
        from transformers.utils.chat_template_utils import render_jinja_template

        special, given = self.tokenizer.special_tokens_map, dict(talk.given)
        _, found = render_jinja_template(
            [talk.messages],
            tools=given.pop("tools", None),
            documents=given.pop("documents", None),
            chat_template=self.source,
            return_assistant_tokens_mask=True,
            **(special | given),
        )
        spans = [(start, start + len(text[start:end].rstrip())) for start, end in found[0] if text[start:end].strip()]
        if not talk.untrained:
            return spans
        places = [place for place, message in enumerate(talk.messages) if message["role"] == "assistant"]
        if len(spans) != len(places):
            raise Unfit(f"the chat template marks {len(spans)} answers of {len(places)}: none can be left out")
        return [span for place, span in zip(places, spans, strict=True) if place not in talk.untrained]

    def encode(self, talk: Conversation, train_on: Literal["answers", "all"], max_length: int) -> Tokens:
        """The last `max_length` tokens of a conversation that ends with an answer.

        A token is an answer's if it holds one of its characters: a tokenizer may join the first of them to what
        stands before.

        Raises:
            Unfit: as `answers` does.
        """
        text, spans = self.answers(talk)
        encoding = self.encoding(text)
        ids: list[int] = encoding.ids
        labels = [
            token if train_on == "all" or any(start < last and first < end for first, last in spans) else IGNORED
            for token, (start, end) in zip(ids, encoding.offsets, strict=True)
        ]
        return Tokens(ids[-max_length:], labels[-max_length:], len(ids) > max_length)

    def encode_prompt(self, talk: Conversation, max_length: int) -> Tokens:
        """The last `max_length` tokens of a prompt; none of them has a label.

        Raises:
            Unfit: as `prompt` does.
        """
        ids: list[int] = self.encoding(self.prompt(talk.question())).ids
        kept = ids[-max_length:]
        return Tokens(kept, [IGNORED] * len(kept), len(ids) > max_length)


def _check_contained(text: str, talk: Conversation, except_roles: Container[str] = ()) -> None:
    """Raise Unfit for a message that is not in the text of its conversation."""
    for number, message in enumerate(talk.messages, 1):
        if message["role"] not in except_roles and message["content"].strip() not in text:
            raise Unfit(f"the chat template does not write message {number} ({message['role']}) as it is")


def _probe(count: int) -> Conversation:
    return Conversation([{"role": ("user", "assistant")[place % 2], "content": PROBE[place]} for place in range(count)])


def _with_texts(message: Message) -> Message:
    """A message with the arguments of its calls as JSON strings."""
    calls = []
    for call in message.get("tool_calls", []):
        arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        calls.append(call | {"function": call["function"] | {"arguments": arguments}})
    return message | {"tool_calls": calls} if calls else message


TEMPLATES = {
    "plain": "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}",
    "chatml": "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
}
OWN = re.compile(r'^\{\{ "[^{}]*" \}\}')
"""The prefix of our templates for a tokenizer that begins texts with a token."""
EOS = "<|endoftext|>"
CHATML = ("<|im_start|>", "<|im_end|>")
TemplateName = Literal["plain", "chatml"]


def give_template(tokenizer: "PreTrainedTokenizerFast", wanted: TemplateName | None, model: ModelConfig) -> None:
    """Give a tokenizer without a chat template the one that `task.template` names, and its special tokens.

    Raises:
        UserError: where none is wanted, or pretrained weights have never seen its tokens.
    """
    if tokenizer.chat_template:
        return
    if wanted is None:
        what = f"{model.name} is not a chat model: its tokenizer has no chat template, which rows with roles need"
        hint = "Choose one that has, such as model=smollm2; or write task.template=plain."
        raise UserError(Problem("model.tokenizer", what, hint=hint), "the data")
    eos = tokenizer.eos_token or EOS
    tokens = CHATML if wanted == "chatml" else (eos,)
    new = [token for token in tokens if token not in tokenizer.get_vocab()]
    if new and model.first_weights == "pretrained":
        what = f"{wanted} writes {' and '.join(new)}, which the tokenizer of {model.name} does not know"
        hint = "Write task.template=plain, or choose a chat model, such as model=smollm2."
        raise UserError(Problem("task.template", what, hint=hint), "the data")
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    tokenizer.eos_token = tokens[-1]
    tokenizer.chat_template = _beginning(tokenizer) + TEMPLATES[wanted]


def _beginning(tokenizer: "PreTrainedTokenizerFast") -> str:
    """The beginning of a template, which makes a text begin as the tokenizer begins one: with `<s>`, or nothing.

    Some tokenizers take a word at the very beginning of a text for one after a space, and no longer where `<s>` stands
    before it: such get the space.
    """
    first = Tokenizer.of(tokenizer).before_text
    if not first:
        return ""
    text = "".join(tokenizer.convert_ids_to_tokens(first))
    tokenizer.add_tokens(tokenizer.convert_ids_to_tokens(first), special_tokens=True)  # so that each is one token
    wanted = first + tokenizer("a", add_special_tokens=False)["input_ids"]
    spaced = tokenizer(f"{text}a", add_special_tokens=False)["input_ids"] != wanted
    return f"{{{{ {json.dumps(text + ' ' * spaced, ensure_ascii=False)} }}}}"


def own_template(tokenizer: "PreTrainedTokenizerFast") -> TemplateName | None:
    """The name of the template that `give_template` has set; None for a template of the tokenizer."""
    template = tokenizer.chat_template
    if not isinstance(template, str):
        return None
    return next((name for name in get_args(TemplateName) if OWN.sub("", template) == TEMPLATES[name]), None)
