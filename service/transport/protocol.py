"""HTTP/1.1 on sockets, by uvicorn: how much time and room a client may take.

uvicorn waits without end for headers, for the rest of a body that nobody wants, and for a client
that does not read its answer. Here each of these has a limit, and a crowd of idle connections gives
way to new ones.
"""

import asyncio
import logging
import sys
from http import HTTPStatus
from typing import Any, Final, Literal

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from service.http.problems import MEDIA_TYPE, Problem
from service.settings import Settings

KEEP_ALIVE_S: Final = 5  # an idle connection is closed after this long
MOST_HEADER_BYTES: Final = 16 * 2**10
MOST_HEADERS: Final = 100
MOST_TARGET_BYTES: Final = 8 * 2**10
CLOSE: Final = (b"connection", b"close")
REASONS: Final = {414: "the URL is too long", 431: "the headers are too large"}

log = logging.getLogger(__name__)


class ServerConfig(uvicorn.Config):
    """How uvicorn serves this application, in tests too."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(
            app,
            http=LimitedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=settings.trusted_proxies is not None,
            forwarded_allow_ips=settings.trusted_proxies,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=settings.drain_s,
            h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        )
        self.settings = settings


class LimitedProtocol(H11Protocol):
    """One connection."""

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = self._framing = _Framing(h11.SERVER, MOST_HEADER_BYTES)
        self._settings = config.settings
        self._awaited: Literal["headers", "rest"] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    # What the event loop and uvicorn call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections and not self._make_room():
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "all connections are at work")
        else:
            self._await("headers", self._settings.header_timeout_s)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await("headers", self._settings.header_timeout_s)
        elif not self._is_answered_early():
            self._await(None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_answered_early():
            self._await("rest", self._settings.body_timeout_s)
        if self.transport.get_write_buffer_size():
            self._expect_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._await(None)
        if self._reading is not None:
            self._reading.cancel()

    def shutdown(self) -> None:
        self._framing.is_last = True
        if not self.transport.is_closing():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Called while an error of h11 is handled, which knows a better status."""
        error = sys.exception()
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._refuse(HTTPStatus(hint), REASONS.get(hint, "this is not HTTP/1.1"))

    def _should_upgrade(self) -> bool:
        return False  # and no warning for each client that asks

    # Time

    def _await(self, what: Literal["headers", "rest"] | None, seconds: float = 0.0) -> None:
        """Be patient for so long from when this was first awaited."""
        if what == self._awaited:
            return
        self._awaited = what
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None if what is None else self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the headers took too long")
        else:
            self.transport.close()

    def _is_answered_early(self) -> bool:
        """Whether the rest of a body is only read to get to the next request."""
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _expect_reading(self) -> None:
        if self._reading is None:
            self._look_again()

    def _look_again(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(
            self._settings.body_timeout_s, self._check_reading, unread
        )

    def _check_reading(self, unread: int) -> None:
        """Closing is not enough: it waits until the client has read everything."""
        self._reading = None
        left = self.transport.get_write_buffer_size()
        if left >= unread > 0:
            self.transport.abort()
        elif left:
            self._look_again()

    # Room

    def _make_room(self) -> bool:
        """Close a connection that waits for a request, if there is one."""
        for other in self.connections:
            if isinstance(other, LimitedProtocol) and other is not self and other._is_idle():
                other.transport.abort()
                self.connections.discard(other)
                return True
        return False

    def _is_idle(self) -> bool:
        return self.conn.our_state not in (h11.SEND_RESPONSE, h11.SEND_BODY)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer with a problem, if no answer has begun, and close."""
        fields = {"status": int(status), "client": self.client and self.client[0], "why": detail}
        log.info("refused", extra={"fields": fields})
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            problem = Problem(title=status.phrase, status=status, detail=detail)
            body = problem.model_dump_json(exclude_none=True).encode()
            headers = [
                (b"content-type", MEDIA_TYPE.encode()),
                (b"content-length", str(len(body)).encode()),
                CLOSE,
            ]
            head = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


class _Framing(h11.Connection):
    """h11 with limits for what arrives in one piece, which its own limit lets pass."""

    is_last = False  # whether the next answer ends the connection

    def next_event(self) -> Any:
        event = super().next_event()
        if type(event) is h11.Request:
            if len(event.target) > MOST_TARGET_BYTES:
                raise h11.RemoteProtocolError(REASONS[414], error_status_hint=414)
            size = sum(len(name) + len(value) for name, value in event.headers)
            if size > MOST_HEADER_BYTES or len(event.headers) > MOST_HEADERS:
                raise h11.RemoteProtocolError(REASONS[431], error_status_hint=431)
        return event

    def send(self, event: Any) -> Any:
        """An answer in place of 100 Continue ends the connection too.

        Its client may send the body or not, and nobody could tell which.
        """
        is_last = self.is_last or self.they_are_waiting_for_100_continue
        if type(event) is h11.Response and is_last and CLOSE not in event.headers:
            head = [*event.headers, CLOSE]
            event = h11.Response(status_code=event.status_code, headers=head, reason=event.reason)
        return super().send(event)
