"""One HTTP/1.1 connection: uvicorn's h11 protocol, with time limits and a limit on connections.

uvicorn has no time limit for headers, for the rest of a body that is discarded because the response
came before its end, or for a client that does not read the response.
"""

import asyncio
import logging
import sys
from collections.abc import Container, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from service.http.client_identity import address_of
from service.http.problems import MEDIA_TYPE, Problem
from service.settings import Settings
from service.transport.h11_connection import CLOSE, LimitedConnection

SPARE: Final = 16  # connections beyond the limit, for requests for routine paths alone
IN_USE: Final = "all connections are in use"
REASONS: Final = {414: "the URL is too long", 431: "the headers are too large"}

log = logging.getLogger(__name__)


class LimitedProtocol(H11Protocol):
    """Closes the connection when a time limit of the settings is exceeded."""

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
        self.conn = self._limited = LimitedConnection()
        self._settings = settings
        self._routine = routine  # the paths that machines poll
        self._is_spare = False
        self._idle_since = self.loop.time()
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
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._limit_reading("headers")
        elif not self._is_discarding_body():
            self._limit_reading(None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle_since = self.loop.time()
        if self._is_discarding_body():
            self._limit_reading("discarded body")
        if self.transport.get_write_buffer_size():
            self._limit_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._limit_reading(None)
        if self._write_timer is not None:
            self._write_timer.cancel()

    def shutdown(self) -> None:
        self._limited.closes_after_response = True
        if not self.transport.is_closing():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it while it handles an error of h11, which may have a better status."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._reject(HTTPStatus(status), REASONS.get(status, "the request is not valid HTTP/1.1"))

    def _should_upgrade(self) -> bool:
        return False  # uvicorn's own logs two warnings for each request for an upgrade

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
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._reject(HTTPStatus.REQUEST_TIMEOUT, "the headers took too long")
        else:
            self.transport.close()

    def _is_discarding_body(self) -> bool:
        """Whether a body is read only to reach the next request."""
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

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

    def _is_idle(self) -> bool:
        return self.conn.our_state not in (h11.SEND_RESPONSE, h11.SEND_BODY)

    def _reject(self, status: HTTPStatus, detail: str) -> None:
        """Send a problem document, unless a response has begun, and close the connection."""
        fields = {"status": int(status), "client": self.client and self.client[0], "why": detail}
        log.info("rejected", extra={"fields": fields})
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            problem = Problem(title=status.phrase, status=status, detail=detail)
            body = problem.model_dump_json(exclude_none=True).encode()
            headers = [
                (b"content-type", MEDIA_TYPE.encode()),
                (b"content-length", str(len(body)).encode()),
                CLOSE,
            ]
            response = h11.Response(
                status_code=status, headers=headers, reason=status.phrase.encode()
            )
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def _close_idle(connections: Sequence[LimitedProtocol]) -> bool:
    """Close the one that has had no request in flight for longest; False if there is none."""
    idle = [each for each in connections if each._is_idle()]
    if not idle:
        return False
    longest = min(idle, key=lambda each: each._idle_since)
    longest.transport.abort()
    longest.connections.discard(longest)
    return True
