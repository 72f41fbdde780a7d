"""Connections that send no request, or send it too slowly, are closed: uvicorn waits for headers without an end.

uvicorn closes a connection that is idle after a response (`timeout_keep_alive`), but not one that has never sent a
request, or sends a byte a second. Bodies have a limit of their own, see `read_body` in http.py.
"""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS = 64 * 1024  # bytes of the headers of a request; proxies allow 8 to 32 KiB
SECONDS = 10.0


class Connection(HttpToolsProtocol):
    """uvicorn's connection with a limit on the time and the size of the headers of a request."""

    seconds = SECONDS
    """From the beginning of a connection, or the first byte of a further request, to the end of the headers."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._timer: TimerHandle | None = None
        self._between = True  # no request is being answered, and its headers are not complete
        self._received = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.seconds, self._late)

    def data_received(self, data: bytes) -> None:
        if self._between:
            self._received += len(data)
            if self._timer is None:
                self._timer = self.loop.call_later(self.seconds, self._late)
        super().data_received(data)
        # Data may hold the end of headers and a large body: the limit counts what came before.
        if self._between and self._received > HEADERS:
            self._late()

    def on_headers_complete(self) -> None:
        self._between, self._received = False, 0
        self._stop()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        self._between = True
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._stop()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
