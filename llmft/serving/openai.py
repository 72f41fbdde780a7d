"""OpenAI's routes, /v1/chat/completions, /v1/completions, and /v1/models, for models that write texts."""

import asyncio
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from llmft.data.source import Table
from llmft.schema.inference import GenerationConfig
from llmft.serving.batcher import Full
from llmft.serving.embeddings import embeds
from llmft.serving.http import TITLES, Refused, dumped, json_response, read_json, unless_left
from llmft.serving.metrics import Watch
from llmft.serving.models import Models, Served
from llmft.serving.openai_requests import Asked, ChatRequest, CompletionRequest, wrong
from llmft.tasks.chat.conversations import Unfit

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from llmft.predictions.continuation import Continuation, Writer

MAX_BODY = 1 << 20
REFUSALS: tuple[int, ...] = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)
TYPES = {404: "not_found_error", 429: "rate_limit_error"}
"""What OpenAI calls an error, by status; else it is the request's below 500, and the server's from there on."""
NO_TEXTS = "no model of this service writes texts; GET /info lists its models, and POST /predict asks them"
CODES = {"full": "rate_limit_exceeded", "deadline": "timeout", "not_ready": "model_not_ready"}


class Ended(NamedTuple):
    """The end of a text."""

    text: str
    finish_reason: str
    tokens: int
    """How many the model has written, its end token among them."""


@dataclass
class Job:
    """A text that is written in a thread, and the loop that takes its parts."""

    until: float
    """When it must be complete, on the clock of time.monotonic."""
    release: Callable[[], None]
    """Counts it out of the queue; called once, in the thread of the loop."""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    parts: asyncio.Queue[str | Ended | Refused] = field(default_factory=asyncio.Queue)
    left: Event = field(default_factory=Event)
    """Set once nobody waits for it any more."""
    work: "Future[None]" = field(default_factory=Future)
    over: bool = False

    def halted(self) -> bool:
        """Whether writing it further is of no use."""
        return self.left.is_set() or time.monotonic() > self.until

    def send(self, part: str | Ended | Refused) -> None:
        """Hand a part to the loop, from the thread that writes."""
        with suppress(RuntimeError):  # the loop is closed: the server has ended
            self.loop.call_soon_threadsafe(self.parts.put_nowait, part)

    def done(self, _: object) -> None:
        """The work is over, in whatever thread."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.end)

    def leave(self) -> None:
        """End it: at its next token, or before its first."""
        self.left.set()
        self.work.cancel()

    async def next(self) -> str | Ended | Refused:
        """The next part, or the end: the complete text, or why it could not be completed."""
        part = await self.parts.get()
        if not isinstance(part, str):
            self.end()
        return part

    async def last(self) -> Ended | Refused:
        """The end."""
        while isinstance(part := await self.next(), str):
            pass
        return part

    def end(self) -> None:
        """Count it out: nothing is written any more. Called in the thread of the loop, more than once at times."""
        if not self.over:
            self.over = True
            self.release()


@dataclass(frozen=True)
class Kind:
    """What differs between a reply in a chat and the continuation of a text."""

    request: type[Asked]
    prefix: str
    """Of the ids of answers."""
    object: str
    chunk: str
    """What OpenAI calls an answer, and a part of one."""
    whole: Callable[[str], dict[str, Any]]
    """The text of an answer as a choice has it."""
    part: Callable[[str | None], dict[str, Any]]
    """A part of it; None: nothing more comes."""
    opening: bool
    """Whether a stream begins with a chunk that names the role."""


CHAT = Kind(
    ChatRequest,
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    lambda text: {"delta": {} if text is None else {"content": text}},
    opening=True,
)
COMPLETION = Kind(
    CompletionRequest,
    "cmpl",
    "text_completion",
    "text_completion",
    lambda text: {"text": text},
    lambda text: {"text": text or ""},
    opening=False,
)


class Texts:
    """Writes texts in threads of its own, `serve.streams` at once; the others wait in the queue of all requests.

    Each is computed by itself, so that strangers in a batch cannot change it, not even in the last digit of a score.
    """

    def __init__(self, models: Models, watch: Watch) -> None:
        self.models, self.watch = models, watch
        self.serve = models.config.serve
        self.threads = ThreadPoolExecutor(self.serve.streams, thread_name_prefix="text")
        self.created = int(time.time())

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        app.state.texts = self
        codes: dict[int | str, dict[str, Any]] = {code: {"description": TITLES[code]} for code in REFUSALS}
        for path, endpoint, asked in (
            ("/v1/chat/completions", self.chat_completions, ChatRequest),
            ("/v1/completions", self.completions, CompletionRequest),
        ):
            body = {"required": True, "content": {"application/json": {"schema": asked.model_json_schema()}}}
            app.add_api_route(path, endpoint, methods=["POST"], openapi_extra={"requestBody": body}, responses=codes)
        app.add_api_route("/v1/models", self.list_models, methods=["GET"])

    async def chat_completions(self, request: Request) -> Response:
        """Answer the last of some messages."""
        return await self._answer(request, CHAT)

    async def completions(self, request: Request) -> Response:
        """Continue a text."""
        return await self._answer(request, COMPLETION)

    async def list_models(self) -> Response:
        """List the models that write texts, or give vectors: `writes` tells which, as OpenAI's list does not."""
        same = {"object": "model", "created": self.created, "owned_by": "llmft"}
        listed = [
            {"id": served.name, **same, "writes": served.writer is not None}
            for served in self.models.loaded()
            if served.writer or embeds(served)
        ]
        return json_response({"object": "list", "data": listed})

    def _names(self) -> list[str]:
        """The models that write texts, as far as they are loaded."""
        return [served.name for served in self.models.loaded() if served.writer]

    async def _answer(self, request: Request, kind: Kind) -> Response:
        """Answer a request, as a whole or as a stream of server-sent events.

        Raises:
            Refused: if it cannot be answered, the queue is full, or there is no answer in time.
            Left: if the client has closed the connection.
        """
        start = time.monotonic()
        body = await read_json(request, self.serve.max_body or MAX_BODY, self.serve.read_timeout_s)
        asked = kind.request.read(body)
        served, writer = self._found(asked.model)
        try:
            self.models.admission.admit(1)
        except Full as full:
            served.release()
            retry = {"retry-after": str(full.retry_after)}
            raise Refused(429, "the queue is full; ask again later", headers=retry, reason="full") from None
        head = {
            "id": f"{kind.prefix}-{uuid4().hex}",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.version,
        }
        job = Job(start + self.serve.timeout_s, partial(self._release, served, start))
        try:
            prompt, row = await self._waiting(request, job, self._prompt(served, writer, asked))
            options = self._options(served, writer, asked, len(prompt))
            seed = served.config.seed if asked.seed is None else asked.seed
            make = writer.reply if isinstance(asked, ChatRequest) else writer.continuation
            text = make(job.send, asked.stops)
            heard = partial(self._answered, served, str(head["id"]), row, len(prompt))
            job.work = self.threads.submit(self._write, job, served, writer, prompt, text, options, seed, heard)
        except BaseException:
            job.end()
            raise
        job.work.add_done_callback(job.done)
        try:
            if asked.stream:
                first = await self._waiting(request, job, job.next())
                if isinstance(first, Refused):
                    raise first
                return Events(job, self._events(job, first, kind, asked, head, len(prompt)))
            ended = await self._waiting(request, job, job.last())
            if isinstance(ended, Refused):
                raise ended
        except BaseException:
            job.leave()
            raise
        choice = {"index": 0, **kind.whole(ended.text), "finish_reason": ended.finish_reason, "logprobs": None}
        usage = _usage(len(prompt), ended)
        return json_response({**head, "object": kind.object, "choices": [choice], "usage": usage})

    def _found(self, name: str | None) -> tuple[Served, "Writer"]:
        """The model that a request names, or the only one that writes texts, with this request counted in.

        Raises:
            Refused: for another name, and a model that is not loaded, or answers rows alone.
        """
        names = self._names()
        if name is None:
            name = (
                names[0]
                if len(names) == 1
                else next(iter(self.models.sources))
                if len(self.models.sources) == 1
                else None
            )
        if name is None:
            what = f"model must name one of {', '.join(names)}" if names else NO_TEXTS
            raise wrong("model", what, None if names else "model_not_found", 400 if names else 404)
        if name not in self.models.sources:
            what = f"there is no such model; those that write texts are {', '.join(names)}" if names else NO_TEXTS
            raise wrong("model", what, "model_not_found", 404)
        served = self.models.hold(name)
        if served is None:
            raise Refused(503, f"{name} is still loading", headers={"retry-after": "1"}, reason="not_ready")
        if (writer := served.writer) is None:
            served.release()
            what = f"{name} does not continue texts: its task is {served.config.task.name}; ask POST /predict"
            raise wrong("model", what, "model_not_found", 404)
        return served, writer

    async def _prompt(self, served: Served, writer: "Writer", asked: Asked) -> tuple[list[int], dict[str, Any]]:
        """The tokens of what is asked, and the row that `llmft predict` would read; empty if it reads other rows.

        It is encoded in a thread, since a long text takes a while.
        """
        task = served.task
        if isinstance(asked, CompletionRequest):
            text, role = asked.text(self.serve.max_text), task.default_input_role
            row = {role: text} if task.columns[role].kind == "text" else {}
            return await asyncio.to_thread(writer.text_tokens, text), row
        assert isinstance(asked, ChatRequest)
        if (chat := writer.chat) is None:
            raise wrong("model", f"{served.name} has no chat template, by which turns are written; ask /v1/completions")
        talk, with_system = asked.conversation(self.serve.max_text)
        row = {"messages": dumped(talk.messages).decode()} if "messages" in task.columns else {}
        try:
            return await asyncio.to_thread(writer.reply_tokens, chat.to_prompt(talk) if with_system else talk), row
        except Unfit as error:
            raise wrong("messages", error.what) from None
        except RecursionError:
            raise wrong("messages", "messages has too many levels") from None

    def _options(self, served: Served, writer: "Writer", asked: Asked, length: int) -> GenerationConfig:
        """How the answer to a prompt is written.

        Raises:
            Refused: where prompt and answer have no room. Nothing is cut in silence.
        """
        options = asked.options(served.config.generation)
        wanted = 1 if asked.limit is None else asked.limit
        if length + wanted > writer.room:
            what = f"the model reads and writes at most {writer.room:,} tokens; the prompt has {length:,}"
            what += "" if asked.limit is None else f", and {wanted:,} are asked for"
            raise wrong("messages" if isinstance(asked, ChatRequest) else "prompt", what, "context_length_exceeded")
        return options.model_copy(update={"max_new_tokens": min(options.max_new_tokens, writer.room - length)})

    async def _waiting(self, request: Request, job: Job, answer: Any) -> Any:
        """What is awaited, unless the client leaves, or there is no time left."""
        left = max(job.until - time.monotonic(), 0)
        try:
            return await unless_left(request, answer, left)
        except Refused as error:
            raise self._late() if error.status == 504 else error from None

    def _late(self) -> Refused:
        return Refused(504, f"there was no answer within {self.serve.timeout_s:g} seconds", reason="deadline")

    def _write(
        self,
        job: Job,
        served: Served,
        writer: "Writer",
        prompt: list[int],
        text: "Continuation",
        options: GenerationConfig,
        seed: int,
        heard: Callable[[Ended], None],
    ) -> None:
        """Write a text, in a thread."""
        start = time.monotonic()
        try:
            if not job.halted():
                writer.write(prompt, text, options, seed, job.halted)
                waited = start - job.until + self.serve.timeout_s
                self.watch.batch(served.name, 1, waited, time.monotonic() - start)
            if not text.tokens or text.halted:
                job.send(self._late())
                return
            ended = Ended(text.text, text.finish_reason, len(text.tokens))
            heard(ended)
            job.send(ended)
        except Exception:
            traceback.print_exc(file=sys.stderr)  # for the operator; a client learns nothing of the code
            job.send(Refused(500, "see the log of the server"))

    async def _events(
        self,
        job: Job,
        first: str | Ended,
        kind: Kind,
        asked: Asked,
        head: dict[str, Any],
        prompt: int,
    ) -> AsyncIterator[bytes]:
        """The events of a stream. Only a chunk with `finish_reason` makes it complete: clients take any end for one."""
        head = {**head, "object": kind.chunk}

        def chunk(content: dict[str, Any], reason: str | None = None) -> bytes:
            choice = {"index": 0, **content, "finish_reason": reason, "logprobs": None}
            return _event({**head, "choices": [choice]} | ({"usage": None} if asked.include_usage else {}))

        if kind.opening:
            yield chunk({"delta": {"role": "assistant", "content": ""}})
        part: str | Ended | Refused = first
        while isinstance(part, str):
            yield chunk(kind.part(part))
            part = await job.next()
        if isinstance(part, Refused):
            self.watch.rejected(part.reason)
            yield _event({"error": error_of(part)})
            return
        yield chunk(kind.part(None), part.finish_reason)
        if asked.include_usage:
            yield _event({**head, "choices": [], "usage": _usage(prompt, part)})
        yield b"data: [DONE]\n\n"

    def _answered(self, served: Served, name: str, row: dict[str, Any], prompt: int, ended: Ended) -> None:
        """Tell the watch of an answer."""
        rows = Table({role: [cell] for role, cell in row.items()}, [name])
        if row:
            self.watch.answered(served, [name], rows, [{"answer": ended.text}], prompt, 0)

    def _release(self, served: Served, start: float) -> None:
        served.release()
        self.models.admission.release(1, time.monotonic() - start)


class Events(StreamingResponse):
    """A stream of server-sent events. When the client leaves, the text is written no further."""

    def __init__(self, job: Job, events: AsyncIterator[bytes]) -> None:
        # A proxy such as nginx would keep the events until there are many.
        super().__init__(events, headers={"x-accel-buffering": "no"}, media_type="text/event-stream")
        self.job = job

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.leave()


def error_of(error: Refused) -> dict[str, Any]:
    """The error as OpenAI has it."""
    kind = TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    named = error.errors[0] if error.errors else {}
    code = named.get("code") or CODES.get(error.reason)
    return {"message": error.detail, "type": kind, "param": named.get("path") or None, "code": code}


def _usage(prompt: int, ended: Ended) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": ended.tokens, "total_tokens": prompt + ended.tokens}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + dumped(value) + b"\n\n"
