"""Writes one text, token by token: what `llmft chat` shows, and what the service answers under /v1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers.models import BPE
from transformers import StoppingCriteria, StoppingCriteriaList

from llmft.models.adapters import unwrap
from llmft.models.build import max_positions
from llmft.models.generate import generation_config, processors
from llmft.schema.inference import GenerationConfig
from llmft.tasks.chat.chat_state import ChatState
from llmft.tasks.chat.conversations import Conversation
from llmft.tasks.optional import Chats
from llmft.tasks.task import Task
from llmft.tasks.tokenizer import CLEANED, Tokenizer
from llmft.training.evaluation import float32


class Continuation:
    """The tokens that a model writes, shown as far as their text cannot change; transformers calls `put` with each."""

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        ends: frozenset[int],
        *,
        strip: bool = False,
        stops: tuple[str, ...] = (),
        unsettled: tuple[str, ...] = (),
        write: Callable[[str], None] = lambda _: None,
    ) -> None:
        """An empty text.

        Args:
            decode: the text of tokens.
            ends: tokens that end the text and are not part of it.
            strip: whether white space around the text is left out.
            stops: texts that end it, and are not part of it.
            unsettled: texts that decoding replaces once all of their characters are there.
            write: takes each new part of the text.
        """
        self.decode, self.ends, self.strip, self.stops, self.write = decode, ends, strip, stops, write
        self.held = (*stops, *unsettled)
        self.tokens: list[int] = []
        self.stopped = False
        """Whether the text has reached one of `stops`."""
        self.halted = False
        """Whether it was given up before it was complete."""
        self._shown = ""
        self._prompt = True

    @property
    def ended(self) -> bool:
        """Whether the model itself has ended the text."""
        return not self.ends.isdisjoint(self.tokens)

    @property
    def finish_reason(self) -> Literal["stop", "length"]:
        """Why the text has ended: by an end token or one of `stops`, or because there was no room for more."""
        return "stop" if self.ended or self.stopped else "length"

    @property
    def text(self) -> str:
        """All that was written, up to an end token or one of `stops`."""
        return self._trimmed(self._until_stop(self._decoded()))

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, and then each token."""
        if self._prompt:
            self._prompt = False
            return
        self.take(value.reshape(-1).tolist())

    def take(self, tokens: list[int]) -> None:
        """Add tokens, and write the new part of the text."""
        self.tokens += tokens
        whole = self._decoded()
        text = self._until_stop(whole)
        self.stopped = self.stopped or len(text) < len(whole)
        if text.endswith("\ufffd"):  # the last letter comes in parts
            return
        if not self.stopped:
            text = text[: len(text) - _length_held(text, self.held)]
        self._show(self._trimmed(text))

    def end(self) -> None:
        """Called at the end of the text."""
        self._show(self.text)

    def _show(self, text: str) -> None:
        if len(text) > len(self._shown) and text.startswith(self._shown):
            self.write(text[len(self._shown) :])
            self._shown = text

    def _decoded(self) -> str:
        place = next((place for place, token in enumerate(self.tokens) if token in self.ends), None)
        return self.decode(self.tokens[:place])

    def _until_stop(self, text: str) -> str:
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else text

    def _trimmed(self, text: str) -> str:
        return text.strip() if self.strip else text


def _length_held(text: str, patterns: tuple[str, ...]) -> int:
    """How many of the last characters may be the beginning of a pattern."""
    return max((n for one in patterns for n in range(1, len(one)) if text.endswith(one[:n])), default=0)


class _Halting(StoppingCriteria):
    """Ends a generation after the token at which its text is complete, or nobody waits for it any more."""

    def __init__(self, text: Continuation, halted: Callable[[], bool]) -> None:
        self.text, self.halted = text, halted

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        self.text.halted = not (self.text.stopped or self.text.ended) and self.halted()
        done = self.text.stopped or self.text.halted
        return torch.full((len(input_ids),), done, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


@dataclass(frozen=True)
class Writer:
    """A causal language model that continues prompts. Threads can use it at the same time."""

    model: Any
    tokenizer: Tokenizer
    chat: ChatState | None
    """The chat template, if the model answers in turns."""
    room: int
    """Tokens that the model reads at once, those that it writes among them."""

    @classmethod
    def of(cls, model: Any, task: Task[Any], from_scratch: bool) -> "Writer":
        """The writer of a task whose model is causal.

        Args:
            from_scratch: whether the weights were trained here, and so have read nothing longer than training rows.
        """
        chat = task.chat_state() if isinstance(task, Chats) else None
        longest, room = task.state.max_length, max_positions(unwrap(model).config)
        if room is None or from_scratch:
            room = min(room or longest, longest)
        return cls(model, task.state.tokenizer, chat, room)

    def reply_tokens(self, talk: Conversation) -> list[int]:
        """The tokens of a conversation that ends with what the model should answer.

        Raises:
            Unfit: where the chat template refuses it, or a message holds a control token.
        """
        assert self.chat is not None
        return list(self.chat.template.encoding(self.chat.template.reply_prompt(talk)).ids)

    def text_tokens(self, text: str) -> list[int]:
        """The tokens of a text to continue, after the token that the tokenizer puts before a text.

        What looks like a special token is encoded as plain text.
        """
        ids = self.tokenizer.before_text + self.tokenizer.encode([text], special=False)[0].ids
        start = self.tokenizer.bos_token_id
        return ids or [min(self._ends) if start is None else start]

    def reply(self, write: Callable[[str], None] = lambda _: None, stops: tuple[str, ...] = ()) -> Continuation:
        """The answer of a conversation that is not written yet; the arguments are those of `Continuation`."""
        assert self.chat is not None
        ends = frozenset({self.chat.template.end})
        return Continuation(self._readable, ends, strip=True, stops=stops, unsettled=self._unsettled, write=write)

    def continuation(self, write: Callable[[str], None] = lambda _: None, stops: tuple[str, ...] = ()) -> Continuation:
        """The text after a text that is not written yet; the arguments are those of `Continuation`."""
        return Continuation(self.tokenizer.decode, self._ends, stops=stops, unsettled=self._unsettled, write=write)

    def write(
        self,
        prompt: list[int],
        text: Continuation,
        options: GenerationConfig,
        seed: int = 0,
        halted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Fill a text with what the model writes after a prompt, at most `options.max_new_tokens` tokens.

        The tokens depend on the model, the prompt, the options, and the seed, not on what other threads do.

        Args:
            halted: asked after each token; the text ends there once it is true.
        """
        generator = unwrap(self.model)
        ids = torch.tensor([prompt], device=next(generator.parameters()).device)
        mask = torch.ones_like(ids)
        config = generation_config(generator, options.model_copy(update={"sample": False}))
        config.eos_token_id = sorted(text.ends)
        streams = options.beams == 1  # several beginnings have no text that could be shown
        with float32(generator):
            # Not what set_generation may have put on the instance: these are the options of this text alone.
            written = type(generator).generate(
                generator,
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=processors(generator, options, ids, mask, seed),
                stopping_criteria=StoppingCriteriaList([_Halting(text, halted)]),
                **({"streamer": text} if streams else {}),
            )
        if not streams:
            text.take(written[0, len(prompt) :].tolist())
            text.end()

    def _readable(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    @property
    def _ends(self) -> frozenset[int]:
        end = unwrap(self.model).config.eos_token_id
        return frozenset(end if isinstance(end, list) else [end])

    @property
    def _unsettled(self) -> tuple[str, ...]:
        """What decoding may still change: transformers cleans the spaces of WordPiece, and not those of BPE."""
        return () if isinstance(self.tokenizer.backend.model, BPE) else tuple(spaced for spaced, _ in CLEANED)
