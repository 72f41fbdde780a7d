"""`llmft chat http://...`: talk with a model of `llmft serve`, or of another server that has OpenAI's routes."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from pydantic import ValidationError

from llmft.commands.terminal import message, start, tell
from llmft.schema.inference import ChatConfig, GenerationConfig
from llmft.schema.problem import Failure, Problem, UserError
from llmft.schema.section import Section
from llmft.tasks.chat.conversations import Message, Unfit

KEY = "LLMFT_API_KEY"
SECTIONS: dict[str, type[Section]] = {"chat": ChatConfig, "generation": GenerationConfig}
FIELDS = {
    "generation.max_new_tokens": "max_tokens",
    "generation.temperature": "temperature",
    "generation.top_p": "top_p",
    "seed": "seed",
}
"""Keys that a server can be told, and what OpenAI calls them."""
KEYS = (*FIELDS, "generation.sample", "chat.system", "model")
TIMEOUT = 300  # seconds without a byte: a busy server may let a text wait
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def run(words: list[str]) -> None:
    """Read messages from standard input, a line each, and write the answers of the server as they come.

    Args:
        words: the address, and overrides: KEYS.

    Raises:
        UserError: for an override that a server cannot be told, a wrong key, or an unknown model.
        Failure: if there is no such server at the address.
    """
    address, overrides = words[0].rstrip("/").removesuffix("/v1"), dict(map(_override, words[1:]))
    given = {FIELDS[key]: value for key, value in overrides.items() if key in FIELDS}
    if (sample := overrides.get("generation.sample")) is not None:
        given["temperature"] = given.get("temperature", 1.0) if sample else 0.0
    server = Server(address, os.environ.get(KEY, ""))
    try:
        listed = json.loads(server.ask("models").read())["data"]
        names = [model["id"] for model in listed if model.get("writes", True)]  # not those that only give vectors
    except Refused as error:
        if error.status in (401, 403):
            raise UserError(Problem(address, str(error), hint=f"Set the environment variable {KEY}.")) from None
        raise Failure(f"{address} refuses to list its models: {error}") from None
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise Failure(f"{address} cannot be reached, or is not a server of models: {_reason(error)}") from error
    wanted = str(overrides.get("model", names[0] if len(names) == 1 else ""))
    if wanted not in names:
        if not names:
            raise UserError(Problem(address, "has no model that writes texts", "command line"))
        got = f", got {wanted}" if wanted else ""
        what = f"must be one of {', '.join(names)}{got}"
        raise UserError(Problem("model", what, "command line", f"Write model={names[0]}."))
    chat = RemoteChat(server, wanted, given, overrides.get("chat.system"))
    start(chat, f"{wanted} at {address}")


def _override(word: str) -> tuple[str, Any]:
    """A key and its checked value."""
    key, equals, value = word.partition("=")
    if key not in KEYS or not equals:
        what = f"cannot be set for a server; llmft chat ADDRESS accepts {', '.join(KEYS)}"
        raise UserError(Problem(key, what, "command line"))
    section, _, name = key.rpartition(".")
    try:
        if section:
            return key, getattr(SECTIONS[section].model_validate({name: value}), name)
        return key, int(value) if key == "seed" else value
    except ValidationError as error:
        what = error.errors()[0]["msg"].lower().replace("input should be", "must be") + f", got {value!r}"
    except ValueError:
        what = f"must be a whole number, got {value!r}"
    raise UserError(Problem(key, what, "command line"))


class Refused(Exception):
    """What the server says in place of an answer."""

    def __init__(self, status: int, code: str, what: str) -> None:
        self.status, self.code = status, code
        super().__init__(what)


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an error: urllib would send the API key to wherever it leads."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class Server:
    """A server with OpenAI's routes."""

    address: str
    key: str = field(default="", repr=False)

    def ask(self, route: str, body: dict[str, Any] | None = None) -> Any:
        """The open response of `/v1/ROUTE`, to a POST if there is a body.

        Raises:
            Refused: for an answer that is an error.
            OSError, HTTPException: if no answer comes.
        """
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        try:
            return self._opener.open(Request(f"{self.address}/v1/{route}", data, headers), timeout=TIMEOUT)
        except HTTPError as error:
            with closing(error):
                raise _refusal(error.code, error.read()) from None

    @property
    def _opener(self) -> OpenerDirector:
        own = urlsplit(self.address).hostname in LOOPBACK
        # A proxy would look for the address on its own machine.
        return build_opener(_NoRedirects, *([ProxyHandler({})] if own else []))


def _refusal(status: int, body: bytes) -> Refused:
    """The error of a response: OpenAI's `error`, or `detail` of RFC 9457."""
    try:
        found = json.loads(body)
        error = found.get("error", found)
        what = error.get("message") or error.get("detail") or error.get("title")
        return Refused(status, str(error.get("code")), str(what or f"the server answers {status}"))
    except (ValueError, AttributeError):
        return Refused(status, "", f"the server answers {status}")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)  # of urllib's URLError
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)


@dataclass
class RemoteChat:
    """A conversation with a model of a server, which goes on."""

    server: Server
    model: str
    given: dict[str, Any]
    """Fields of each request: `max_tokens`, `temperature`, ..."""
    wanted: str | None = None
    """The system prompt. None: that of the server; empty: none."""
    messages: list[Message] = field(default_factory=list)

    @property
    def system(self) -> str:
        """The system prompt; empty if there is none, or the server has its own."""
        return self.wanted or ""

    def set_system(self, text: str) -> None:
        """Set the system prompt; an empty one is none. The server says with the next message whether it takes it."""
        self.wanted = text.strip() and text

    def ask(self, text: str, write: Callable[[str], None]) -> None:
        """Answer a message, as `Talks.ask` says. The oldest turns that have no room are left out, for good.

        Raises:
            Unfit: for a message that the server does not answer; it is forgotten.
        """
        self.messages.append(message("user", text))
        answer, gone = "", 0
        try:
            while True:
                try:
                    for part in self._parts():
                        answer += part
                        write(part)
                    break
                except Refused as error:
                    if error.code != "context_length_exceeded" or len(self.messages) < 3:
                        raise
                    del self.messages[:2]
                    gone += 1
        except KeyboardInterrupt:
            tell(" (stopped)")
        except (Refused, OSError, HTTPException) as error:
            if not answer:
                self.messages.pop()
                raise Unfit(str(error) if isinstance(error, Refused) else f"no answer: {_reason(error)}") from error
            tell(f" (broken off: {error if isinstance(error, Refused) else _reason(error)})")
        if gone:
            tell(f"({gone} of the oldest turns left out: the model has no room for them)")
        write("\n")
        self.messages.append(message("assistant", answer))

    def _parts(self) -> Iterator[str]:
        """The parts of an answer.

        Raises:
            Refused: for an error of the server, before the answer or in it.
            OSError, HTTPException: if the connection is lost.
        """
        system = [] if self.wanted is None else [message("system", self.wanted)]
        body = {"model": self.model, "messages": [*system, *self.messages], "stream": True, **self.given}
        reason = None
        with self.server.ask("chat/completions", body) as response:
            for line in response:
                event = line.decode().strip().removeprefix("data:").strip()
                if not line.startswith(b"data:") or event == "[DONE]":
                    continue
                found = json.loads(event)
                if "error" in found:
                    raise _refusal(200, event.encode())
                for choice in found["choices"]:
                    yield choice["delta"].get("content") or ""
                    reason = choice["finish_reason"] or reason
        if reason is None:  # the connection was closed, which is no error of HTTP
            raise HTTPException("the server closed the connection")
        if reason == "length":
            tell(" (cut; generation.max_new_tokens says how many tokens an answer may have)")
