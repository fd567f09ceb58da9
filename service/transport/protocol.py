"""One HTTP/1.1 connection: uvicorn's httptools protocol, with limits.

uvicorn has no time limit for headers, for the rest of a body that is discarded because the response
came before its end, or for a client that does not read the response. Its parser, llhttp, takes a
head of any size.
"""

import asyncio
import logging
import re
from collections.abc import Container, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from service.http.client_identity import address_of
from service.http.problems import MEDIA_TYPE, Problem
from service.settings import Settings

MAX_HEADER_BYTES: Final = 16 * 2**10
MAX_HEADERS: Final = 100
MAX_TARGET_BYTES: Final = 8 * 2**10
SPARE: Final = 16  # connections beyond the limit, for requests for routine paths alone
IN_USE: Final = "all connections are in use"
REQUEST_LINE: Final = re.compile(rb"[\w!#$%&'*+.^`|~-]+ \S+ HTTP/1\.[01]\r\n", re.ASCII)
REASONS: Final = {
    405: "HTTP has no such method",
    414: "the URL is too long",
    431: "the headers are too large",
    501: "the only transfer encoding is chunked",
}
FRAMINGS: Final = {b"content-length", b"transfer-encoding"}

log = logging.getLogger(__name__)


class LimitedProtocol(HttpToolsProtocol):
    """Closes the connection when a limit of the settings, or of a head, is exceeded."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        settings: Settings,
        routine: Container[str],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # A request with both framings has the body of its chunks; it is the last (RFC 9112, 6.1).
        self.parser.set_dangerous_leniencies(
            lenient_data_after_close=True, lenient_chunked_length=True
        )
        self._settings = settings
        self._routine = routine  # the paths that machines poll
        self._is_spare = False
        self._idle_since = self.loop.time()
        self._within: Literal["head", "body"] | None = None  # of the request that is being read
        self._head_bytes = 0  # that came after the piece in which the head began
        self._header_bytes = 0
        self._header_count = 0
        self._refused: HTTPStatus | None = None  # what a head will be answered with
        self._is_deaf = False  # what comes after an invalid request is not read
        self._reading: Literal["headers", "discarded body"] | None = None  # with a time limit
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    # Called by the event loop and by uvicorn

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            host, port = self.client
            self.client = address_of(host) or host, port
        if self._has_room():
            self._limit_reading("headers")
        else:
            self._reject(HTTPStatus.SERVICE_UNAVAILABLE, IN_USE)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        began_before = self._within == "head"
        try:
            self._feed(data)
            if began_before and self._within == "head":
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEADER_BYTES:
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except httptools.HttpParserError as error:
            invalid_method = isinstance(error, httptools.HttpParserInvalidMethodError)
            if invalid_method and REQUEST_LINE.match(data):
                self._refused = HTTPStatus.METHOD_NOT_ALLOWED
            self._end_invalid()
            return
        if self._is_busy():
            self._limit_reading(None)
        elif self._within != "body":
            self._limit_reading("headers")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle_since = self.loop.time()
        if self._within == "head":  # of a request that was sent before this response
            self._limit_reading("headers")
        elif self._is_discarding_body():
            self._limit_reading("discarded body")
        if self.transport.get_write_buffer_size():
            self._limit_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._is_deaf = True
        self._limit_reading(None)
        if self._write_timer is not None:
            self._write_timer.cancel()

    def shutdown(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _should_upgrade(self) -> bool:
        return False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.waiting_for_100_continue:
            app = partial(_closing_unless_continued, app, cycle)
        super()._start_asgi_task(cycle, app)

    # Called by the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._within = "head"
        self._head_bytes = self._header_bytes = self._header_count = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES or self._header_count > MAX_HEADERS:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if self._within == "body":
            return  # a trailer: the application has begun, and a proxy may not have checked it
        super().on_header(name, value)
        if name.lower() == b"transfer-encoding" and value.lower() != b"chunked":
            self._refuse(HTTPStatus.NOT_IMPLEMENTED)

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if version not in ("1.0", "1.1") or hosts > 1 or (version == "1.1" and not hosts):
            self._refuse(HTTPStatus.BAD_REQUEST)
        super().on_headers_complete()
        self._within = "body"
        if FRAMINGS.issubset(names):
            # A proxy before this server may have taken the other of the two for the body's end.
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._within = None

    # Requests

    def _feed(self, data: bytes) -> None:
        """Parse; nothing is upgraded, so what follows a request for it is the next request."""
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                (parsed,) = upgrade.args
                if not parsed:
                    raise httptools.HttpParserError from None
                data = data[parsed:]

    def _refuse(self, status: HTTPStatus) -> None:
        """Stop the parser, which ends with an error of its own."""
        self._refused = status
        raise httptools.HttpParserError

    def _end_invalid(self) -> None:
        """Answer an invalid request, after those before it."""
        self._is_deaf = True
        if self._is_busy() and self._within != "body":
            self.cycle.keep_alive = False  # the last one before it
            return
        status = self._refused or HTTPStatus.BAD_REQUEST
        self._reject(status, REASONS.get(status, "the request is not valid HTTP/1.1"))

    def _is_busy(self) -> bool:
        """Whether a request has not been answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    # Time limits

    def _limit_reading(self, what: Literal["headers", "discarded body"] | None) -> None:
        """Start the timer for `what`, unless it runs already; None stops it."""
        if what == self._reading:
            return
        self._reading = what
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
        if what is not None:
            settings = self._settings
            limit_s = settings.header_timeout_s if what == "headers" else settings.body_timeout_s
            self._read_timer = self.loop.call_later(limit_s, self._end_reading)

    def _end_reading(self) -> None:
        if self.transport.is_closing():
            return
        if self._within == "head" and not self._is_busy():
            self._reject(HTTPStatus.REQUEST_TIMEOUT, "the headers took too long")
        else:
            self.transport.close()

    def _is_discarding_body(self) -> bool:
        """Whether a body is read only to reach the next request."""
        return self._within == "body" and not self._is_busy()

    def _limit_writing(self) -> None:
        """From now on the write buffer must shrink within each `body_timeout_s`."""
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(
                self._settings.body_timeout_s,
                self._check_writing,
                self.transport.get_write_buffer_size(),
            )

    def _check_writing(self, size_before: int) -> None:
        self._write_timer = None
        size = self.transport.get_write_buffer_size()
        if size >= size_before > 0:
            self.transport.abort()  # close() would wait until the client has read everything
        elif size:
            self._limit_writing()

    # The limit on connections

    def _has_room(self) -> bool:
        """Whether this new connection may stay; a spare one may where no other is idle."""
        if len(self.connections) <= self._settings.max_connections:
            return True
        others = [
            each
            for each in self.connections
            if isinstance(each, LimitedProtocol) and each is not self
        ]
        spare = [each for each in others if each._is_spare]
        regular = [each for each in others if not each._is_spare]
        if len(regular) < self._settings.max_connections or _close_idle(regular):
            return True
        self._is_spare = True
        self.app = self._serve_routine
        return len(spare) < SPARE or _close_idle(spare)

    async def _serve_routine(self, scope: Any, receive: Any, send: Any) -> None:
        """The application of a spare connection: whoever probes the server must get an answer."""
        in_use = sum(not each._is_spare for each in self.connections)  # type: ignore[union-attr]
        if in_use < self._settings.max_connections:
            self._is_spare, self.app = False, self.config.loaded_app
        if self._is_spare and scope["path"] not in self._routine:
            self._reject(HTTPStatus.SERVICE_UNAVAILABLE, IN_USE)
        else:
            await self.config.loaded_app(scope, receive, send)

    def _reject(self, status: HTTPStatus, detail: str) -> None:
        """Send a problem document, unless a response has begun, and close the connection."""
        fields = {"status": int(status), "client": self.client and self.client[0], "why": detail}
        log.info("rejected", extra={"fields": fields})
        is_owed = not self.cycle.response_started if self._is_busy() else self._within != "body"
        if is_owed:
            problem = Problem(title=status.phrase, status=status, detail=detail)
            body = problem.model_dump_json(exclude_none=True).encode()
            head = (
                f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[status] + head.encode() + body)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def _close_idle(connections: Sequence[LimitedProtocol]) -> bool:
    """Close the one that has had no request in flight for longest; False if there is none."""
    idle = [each for each in connections if not each._is_busy()]
    if not idle:
        return False
    longest = min(idle, key=lambda each: each._idle_since)
    longest.transport.abort()
    longest.connections.discard(longest)
    return True


async def _closing_unless_continued(
    app: Any, cycle: RequestResponseCycle, scope: Any, receive: Any, send: Any
) -> None:
    """A final response in place of 100 Continue closes the connection.

    The client may or may not send its body then, and the server could not tell the body from the
    next request.
    """

    async def checked(message: Any) -> None:
        if cycle.waiting_for_100_continue:
            cycle.keep_alive = False
        await send(message)

    await app(scope, receive, checked)
