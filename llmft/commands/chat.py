"""`llmft chat RUN`: talk with a finished run, turn after turn. Standard output holds its answers and nothing else."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llmft import tasks
from llmft.models.adapters import unwrap
from llmft.models.build import max_positions
from llmft.models.generate import set_generation
from llmft.models.trained import load_trained
from llmft.reporting.lines import quiet
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError
from llmft.tasks.chat.chat_state import ChatState
from llmft.tasks.chat.conversations import Conversation, Message, Unfit
from llmft.tasks.optional import Chats
from llmft.training.evaluation import float32
from llmft.training.hardware import detect

HELP = """  /system TEXT   set the system prompt; without a text, show it
  /reset         forget the conversation, not the system prompt
  /history       show the conversation
  /help          show this
  /exit          end; so does the end of the input (Ctrl-D)
  //TEXT         say /TEXT
Ctrl-C stops an answer."""


def run(config: Config) -> None:
    """Read messages from standard input, a line each, and write the answer to each as its tokens come.

    Raises:
        UserError: if there is no finished model, or one that does not talk.
    """
    quiet()
    hardware = detect(config.hardware)
    task = tasks.build(config.task)
    source = Path(str(config.run.source))
    model, task = load_trained(source, task, hardware.device, config.model.trust_remote_code)
    if (state := task.chat_state() if isinstance(task, Chats) else None) is None:
        what = f"{config.task.name} does not answer in turns"
        if task.head == "AutoModelForCausalLM":
            what = "its tokenizer has no chat template, by which turns are written"
        raise UserError(Problem(str(source), what, "command line", f"Write llmft predict {source}."))
    set_generation(model, config.generation, config.seed)
    room = max_positions(unwrap(model).config)
    if room is None or config.model.path is None:  # weights that learned here have read nothing longer
        room = min(room or state.max_length, state.max_length)
    chat = Chat(model, state, room, config.generation.max_new_tokens, streams=config.generation.beams == 1)
    wanted = state.system if config.chat.system is None else config.chat.system
    with suppress(Unfit):
        chat.set_system(wanted)
    if chat.system != wanted:
        raise UserError(Problem("chat.system", "the chat template does not write a system prompt"))
    typed = sys.stdin is not None and sys.stdin.isatty()
    if typed:
        tell(f"talking with {source}; /help says what else can be typed")
    talk(chat, _typed() if typed else _piped(), quits=not typed)


@dataclass
class Chat:
    """A conversation with a model that goes on."""

    model: Any
    state: ChatState
    room: int
    """Tokens that the model reads at once, those that it writes among them."""
    longest: int
    """Tokens that an answer has at most."""
    streams: bool = True
    """Whether an answer can be shown while it is written: not where several beginnings are followed."""
    system: str = ""
    messages: list[Message] = field(default_factory=list)
    """The turns so far, without the system prompt."""

    def set_system(self, text: str) -> None:
        """Set the system prompt; an empty one is none.

        Raises:
            Unfit: where the chat template does not write it.
        """
        if text.strip():
            self.state.template.prompt(Conversation([_message("system", text), _message("user", "a")]))
        self.system = text.strip() and text

    def ask(self, text: str, write: Callable[[str], None]) -> None:
        """Answer a message; what is written so far goes to `write`, piece by piece.

        The oldest turns that have no room are left out of what the model reads, for good. An answer that is stopped by
        Ctrl-C stays as far as it came.

        Raises:
            Unfit: for a message that cannot be answered; it is forgotten.
        """
        self.messages.append(_message("user", text))
        stream = Stream(self.state, write if self.streams else lambda _: None)
        try:
            ids = self._prompt()
            # Half of the room at most is kept for the answer, so that long answers don't cost all memory.
            left, gone = min(self.longest, self.room // 2), 0
            while len(ids) + left > self.room and len(self.messages) > 2:
                del self.messages[:2]
                ids, gone = self._prompt(), gone + 1
            if len(ids) >= self.room:
                raise Unfit(f"has {len(ids):,} tokens with what stands around it, and the model reads {self.room:,}")
        except Unfit:
            self.messages.pop()
            raise
        if gone:
            turns = "the oldest turn is" if gone == 1 else f"the {gone} oldest turns are"
            tell(f"({turns} left out: the model reads {self.room:,} tokens)")
        step = min(self.longest, self.room - len(ids))
        try:
            self._generate(ids, step, stream)
        except KeyboardInterrupt:
            tell(" (stopped)")
        else:
            if not stream.ended:
                tell(f" (cut after {step:,} tokens; generation.max_new_tokens says how many an answer may have)")
        stream.finish(write)
        self.messages.append(_message("assistant", stream.text))

    def _prompt(self) -> list[int]:
        """The tokens of the conversation. Answers of the model may hold a thought, which the template leaves out."""
        template = self.state.template
        template.check_control(self.messages[-1], "the message")
        system = [_message("system", self.system)] if self.system else []
        text = template.rendered(Conversation([*system, *self.messages]), add_generation_prompt=True)
        return list(template.encoding(text).ids)

    def _generate(self, ids: list[int], step: int, stream: "Stream") -> None:
        given = torch.tensor([ids], device=next(self.model.parameters()).device)
        asked: dict[str, Any] = {"input_ids": given, "attention_mask": torch.ones_like(given)}
        asked |= {"max_new_tokens": step, "eos_token_id": self.state.template.end}
        with float32(self.model):
            if self.streams:
                self.model.generate(**asked, streamer=stream)
            else:
                stream.tokens = self.model.generate(**asked)[0, len(ids) :].tolist()


class Stream:
    """What a model writes, shown as far as it cannot change any more; transformers calls it with each token."""

    def __init__(self, state: ChatState, write: Callable[[str], None]) -> None:
        self.state, self.write = state, write
        self.tokens: list[int] = []
        self.prompt = True
        self.shown = ""

    @property
    def text(self) -> str:
        """All that was written."""
        return self.state.answer(self.tokens)

    @property
    def ended(self) -> bool:
        """Whether the model itself has ended the answer."""
        return self.state.template.end in self.tokens

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, and then each token."""
        if self.prompt:
            self.prompt = False
            return
        self.tokens += value.reshape(-1).tolist()
        text = self.text
        # The last letter may come in parts, which decode to U+FFFD.
        if text.startswith(self.shown) and not text.endswith("\ufffd"):
            self.write(text[len(self.shown) :])
            self.shown = text

    def end(self) -> None:
        """Called at the end of the text."""

    def finish(self, write: Callable[[str], None]) -> None:
        """Show what was held back, and end the line."""
        text = self.text
        write((text[len(self.shown) :] if text.startswith(self.shown) else f"\n{text}") + "\n")


def talk(chat: Chat, lines: Iterator[str], quits: bool = False) -> None:
    """Answer line after line, and do what those say that begin with a slash.

    Args:
        quits: whether Ctrl-C ends the chat where no answer is being written.
    """
    while True:
        try:
            line = next(lines, None)
        except KeyboardInterrupt:
            if quits:
                raise
            tell("\n(/exit or Ctrl-D ends the chat)")
            continue
        if line is None or line.strip() in ("/exit", "/quit"):
            return
        if not line.strip():
            continue
        try:
            if line.startswith("/") and not line.startswith("//"):
                _command(chat, line)
            else:
                chat.ask(line[1:] if line.startswith("//") else line, show)
        except Unfit as error:
            tell(f"error: {error}")


def _command(chat: Chat, line: str) -> None:
    """Do what a line that begins with a slash says."""
    word, _, rest = line.strip().partition(" ")
    if word == "/system" and rest.strip():
        chat.set_system(rest.strip())
    elif word == "/system":
        tell(chat.system or "(no system prompt)")
    elif word == "/reset":
        chat.messages.clear()
        tell("(the conversation is forgotten)")
    elif word == "/history":
        system = [_message("system", chat.system)] if chat.system else []
        for message in [*system, *chat.messages]:
            tell(f"{message['role']}: {message['content']}")
    elif word == "/help":
        tell(HELP)
    else:
        tell(f"error: no command {word}; they are /system, /reset, /history, /help and /exit. To say it, write /{line}")


def _typed() -> Iterator[str]:
    """Lines from a terminal, which can be edited and called back with the arrow keys."""
    with suppress(ImportError):
        import readline  # noqa: F401  input() then uses it
    return Prompt()


class Prompt:
    """Lines as they are typed. No generator: one that was interrupted would be at its end."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return input("> ")
        except EOFError:
            raise StopIteration from None


def _piped() -> Iterator[str]:
    """Lines from standard input, as UTF-8 whatever the terminal is set to."""
    for raw in sys.stdin.buffer if sys.stdin is not None else ():
        try:
            yield raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            tell("error: a line is not utf-8, and is left out")


def show(text: str) -> None:
    """Write a part of an answer."""
    print(text, end="", flush=True)


def tell(text: str) -> None:
    """Say something that is not an answer."""
    print(text, file=sys.stderr, flush=True)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
