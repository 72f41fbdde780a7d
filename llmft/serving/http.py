"""Requests and responses: bodies within limits, errors as RFC 9457 has them, and who may ask at all."""

import asyncio
import hmac
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from llmft.schema.problem import Problem, UserError
from llmft.schema.serving import ServeConfig

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")
KEY = "LLMFT_API_KEY"
PUBLIC = {"/v2/health/live", "/v2/health/ready", "/"}
PAGE = "/page/"
"""Paths that need no key, and where they begin: a browser cannot send one before it has the page that asks for it."""
TITLES = {
    400: "The request cannot be read",
    401: "A key is needed",
    403: "This address may not ask",
    404: "There is no such path",
    405: "The method does not fit the path",
    408: "The request came too slowly",
    409: "It cannot be done now",
    413: "The request is too large",
    415: "The type of the body is not JSON",
    422: "The rows do not fit the model",
    429: "Too many requests wait",
    500: "The server has failed",
    503: "The model is not ready",
    504: "The answer took too long",
}
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Of every response that has no such header of its own."""


class Left(Exception):
    """The client has closed the connection."""


class Refused(Exception):
    """A request that is not answered, with the status and the reason."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: list[dict[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        reason: str = "invalid",
    ) -> None:
        """Make it.

        Args:
            errors: `{"path": "rows.0.text", "detail": ...}` each.
            reason: as metrics count it.
        """
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, errors or []
        self.headers, self.reason = dict(headers or {}), reason

    def response(self, plain: bool = False) -> Response:
        """The response; `plain`: `{"error": ...}`, as the Open Inference Protocol has it."""
        lines = [f"{error['path']}: {error['detail']}" for error in self.errors]
        body: dict[str, Any] = {"error": "; ".join(lines) or self.detail}
        if not plain:
            body = {"type": "about:blank", "title": TITLES.get(self.status, "Error"), "status": self.status}
            body |= {"detail": self.detail} | ({"errors": self.errors} if self.errors else {})
        kind = "application/json" if plain else "application/problem+json"
        return Response(dumped(body), self.status, self.headers, kind)


def dumped(value: Any) -> bytes:
    """JSON; NaN and infinities become null, and arrays of numpy lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def json_response(value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a value as JSON."""
    return Response(dumped(value), 200, headers, "application/json")


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """The whole body.

    Raises:
        Refused: if it has more than `limit` bytes, by its length or as it comes, or has not come within `seconds`.
        Left: if the client closes the connection.
    """
    too_large = Refused(413, f"a body must have at most {limit:,} bytes", reason="body")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limit:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        what = f"the body must arrive within {seconds:g} seconds"
        raise Refused(408, what, headers={"connection": "close"}, reason="slow") from error
    except ClientDisconnect as error:
        raise Left from error
    return b"".join(parts)


async def read_json(request: Request, limit: int, seconds: float = 10.0, bare: bool = False) -> Any:
    """The JSON of a body; see `read_body`.

    Args:
        bare: whether a body without a type is accepted, from a client that is not a browser.

    Raises:
        Refused: also for a body that is not JSON, or says that it is something else. A form of another site can send
            text, but not JSON, without being asked by the browser first.
    """
    check_type(request, bare)
    return parsed(await read_body(request, limit, seconds))


def check_type(request: Request, bare: bool = False) -> None:
    """Raise Refused if the body is not declared as JSON, or is compressed: a megabyte can be a thousand times that."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "the body must not be compressed", reason="type")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    browser = "origin" in request.headers or "sec-fetch-site" in request.headers
    if kind == "application/json" or kind.endswith("+json") or (bare and not browser and not kind):
        return
    if bare and not browser and kind == "application/octet-stream":  # as Triton's clients send binary tensors
        return
    raise Refused(415, "the header Content-Type must be application/json", reason="type")


def parsed(body: bytes) -> Any:
    """The value of JSON.

    Raises:
        Refused: for what is not JSON: `NaN`, `1e999`, half of a surrogate pair, bytes that are not UTF-8, too many
            levels.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body must be JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None


async def unless_left(request: Request, answer: Awaitable[T], seconds: float | None = None) -> T:
    """What is awaited, unless the client leaves or time is up; then it is cancelled.

    Raises:
        Left: if the client has closed the connection.
        Refused: with 504 after `seconds`.
    """
    wanted = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((wanted, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return wanted.result()
        if gone.done():
            raise Left
        raise Refused(504, f"there was no answer within {seconds:g} seconds", reason="deadline")
    finally:
        gone.cancel()
        if not wanted.done():
            wanted.cancel()


async def _gone(request: Request) -> None:
    """Wait for the end of the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def key_of(config: ServeConfig) -> bytes | None:
    """The key that clients must send: of `serve.key_file`, or of the environment variable LLMFT_API_KEY.

    Raises:
        UserError: for a file that cannot be read, an empty key, or none where others than this machine can ask.
    """
    key = os.environ.get(KEY, "")
    if config.key_file is not None:
        try:
            key = Path(config.key_file).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8"
            raise UserError(Problem("serve.key_file", f"{config.key_file} cannot be read: {why}")) from error
    key = key.strip()
    if config.key_file is not None and not key:
        raise UserError(Problem("serve.key_file", f"{config.key_file} must hold a key, and is empty"))
    if not key and not is_loopback(config.host):
        what = f"must be a loopback address without a key, got {config.host}"
        hint = f"Set {KEY} in the environment, or write serve.key_file=FILE."
        raise UserError(Problem("serve.host", what, hint=hint))
    if not (key.isascii() and key.isprintable()):
        what = "must be one line of ASCII letters, digits, and signs: browsers cannot send another key in a header"
        raise UserError(Problem("serve.key_file" if config.key_file is not None else KEY, what))
    return key.encode() or None


class Guard:
    """Lets requests pass that may ask, and gives every response its headers. Outermost, so that nothing escapes it."""

    def __init__(
        self,
        app: "ASGIApp",
        key: bytes | None,
        local: bool,
        heard: Callable[[str, int, float], None],
        rejected: Callable[[str], None],
        response: Callable[[Refused, str], Response],
    ) -> None:
        """Wrap an app.

        Args:
            key: what clients must send; None: nothing.
            local: whether the server listens on a loopback address. Then `Host` must be one too: a name that another
                site has pointed to this machine would let that site's pages ask (DNS rebinding).
            heard: told of each request: its route, the status, and seconds.
            rejected: told why a request was refused here.
            response: that of a refusal, by the path.
        """
        self.app, self.key, self.local, self.heard, self.rejected = app, key, local, heard, rejected
        self.response = response

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, begun = time.perf_counter(), 500, False

        async def told(message: "Message") -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.append("server-timing", f"total;dur={1000 * (time.perf_counter() - start):.1f}")
            await send(message)

        try:
            if (refused := self._refused(scope)) is not None:
                self.rejected(refused.reason)
                await self.response(refused, scope["path"])(scope, receive, told)
                return
            await self.app(scope, receive, told)
        except Left:
            status = 499  # as nginx counts it; nobody reads it
            self.rejected("left")
        except Exception:
            traceback.print_exc(file=sys.stderr)  # for the operator; a client learns nothing of the code
            if begun:
                raise
            failed = Refused(500, "see the log of the server")
            await self.response(failed, scope["path"])(scope, receive, told)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.heard(route, status, time.perf_counter() - start)

    def _refused(self, scope: "Scope") -> Refused | None:
        headers = Headers(scope=scope)
        host = _split(f"//{headers.get('host', '')}")
        if self.local and not is_loopback((host and host.hostname) or ""):
            return Refused(403, "the header Host must name this machine, such as localhost", reason="host")
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin is not None and not self._is_own(origin, headers):
            return Refused(403, "another site may not ask from a browser", reason="host")
        if self.key is None or scope["path"] in PUBLIC or scope["path"].startswith(PAGE):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # In constant time: how long a comparison takes would tell how much of a key is right.
        if hmac.compare_digest(given.encode("latin-1", "replace"), self.key):
            return None
        what = "send the key in the header Authorization: Bearer KEY"
        return Refused(401, what, headers={"www-authenticate": "Bearer"}, reason="key")

    def _is_own(self, origin: str, headers: Headers) -> bool:
        """Whether a page of this server asks."""
        found = _split(origin)
        return found is not None and found.netloc.lower() == headers.get("host", "").lower()


def _split(address: str) -> SplitResult | None:
    """The parts of an address; None for what is none, such as a bracket that is not closed."""
    try:
        return urlsplit(address)
    except ValueError:
        return None
