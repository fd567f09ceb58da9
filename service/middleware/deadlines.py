"""Limit how long a request takes: its body to arrive, and its response to begin."""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooSlow, DeadlineExceeded

BYTES_PER_S: Final = 64 * 2**10  # a body that arrives at least this fast gets more time


class Deadlines:
    """ASGI middleware: cancels a request that takes too long; raises BodyTooSlow, DeadlineExceeded.

    `deadline_s` counts from the end of the headers. `body_s` counts from the first read of the
    body; every BYTES_PER_S that arrive extend it by a second.
    """

    def __init__(self, app: ASGIApp, deadline_s: float, body_s: float) -> None:
        self._app = app
        self._deadline_s = deadline_s
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        timeout = asyncio.timeout(self._deadline_s)
        try:
            async with timeout:
                body = _TimedBody(receive, timeout, self._body_s)
                await self._app(scope, body.receive, send)
        except TimeoutError as exc:
            if not timeout.expired():
                raise
            if body.is_pending:
                received = f"only {body.received} bytes of the body arrived in time"
                raise BodyTooSlow(received) from exc
            message = f"there was no answer within {self._deadline_s:g} s"
            raise DeadlineExceeded(message) from exc


class _TimedBody:
    """Moves the request's timeout to the body's deadline while the body is read."""

    def __init__(self, receive: Receive, timeout: asyncio.Timeout, body_s: float) -> None:
        self._receive = receive
        self._timeout = timeout
        self._body_s = body_s
        self._request_deadline = timeout.when() or 0.0
        self._start: float | None = None
        self._extended_at = 0  # bytes received when the deadline was last moved
        self._is_complete = False
        self.received = 0  # bytes

    @property
    def is_pending(self) -> bool:
        return self._start is not None and not self._is_complete

    async def receive(self) -> Message:
        if self._is_complete:
            return await self._receive()
        if self._start is None:
            self._start = asyncio.get_running_loop().time()
            self._expire_at(self._start + self._body_s)
        message = await self._receive()
        self.received += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._is_complete = True
            self._expire_at(self._request_deadline)
        elif self.received - self._extended_at >= BYTES_PER_S:
            self._extended_at = self.received
            self._expire_at(self._start + self._body_s + self.received / BYTES_PER_S)
        return message

    def _expire_at(self, when: float) -> None:
        if not self._timeout.expired():
            self._timeout.reschedule(min(when, self._request_deadline))
