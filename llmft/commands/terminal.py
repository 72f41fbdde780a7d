"""The terminal of `llmft chat`: lines that are typed or piped, and commands that begin with a slash."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from llmft.tasks.chat.conversations import Message, Unfit

HELP = """  /system TEXT   set the system prompt; without a text, show it
  /reset         forget the conversation, not the system prompt
  /history       show the conversation
  /help          show this
  /exit          end; so does the end of the input (Ctrl-D)
  //TEXT         say /TEXT
Ctrl-C stops an answer."""


class Talks(Protocol):
    """A conversation that goes on, with a model in this process or with a server."""

    messages: list[Message]
    """The turns so far, without the system prompt."""

    @property
    def system(self) -> str:
        """The system prompt; empty if there is none."""

    def set_system(self, text: str) -> None:
        """Set the system prompt; an empty one is none.

        Raises:
            Unfit: where the model does not take it.
        """

    def ask(self, text: str, write: Callable[[str], None]) -> None:
        """Answer a message; what is written so far goes to `write`, part by part, and then a line break.

        Raises:
            Unfit: for a message that cannot be answered; it is forgotten.
        """


def start(chat: Talks, source: str) -> None:
    """Talk until the input ends.

    Args:
        source: what is talked with, a run or an address.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        tell(f"talking with {source}; /help says what else can be typed")
        talk(chat, typed())
    else:
        talk(chat, piped(), quits=True)


def talk(chat: Talks, lines: Iterator[str], quits: bool = False) -> None:
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


def _command(chat: Talks, line: str) -> None:
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
        system = [message("system", chat.system)] if chat.system else []
        for turn in [*system, *chat.messages]:
            tell(f"{turn['role']}: {turn['content']}")
    elif word == "/help":
        tell(HELP)
    else:
        tell(f"error: no command {word}; they are /system, /reset, /history, /help and /exit. To say it, write /{line}")


def typed() -> Iterator[str]:
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


def piped() -> Iterator[str]:
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


def message(role: str, content: str) -> Message:
    """A turn of a conversation."""
    return {"role": role, "content": content}
