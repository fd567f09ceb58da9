"""How long a request may take: its body to arrive, and then its answer."""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooSlow, DeadlineExceeded
from service.http.problems import refusal

SLOWEST: Final = 64 * 2**10  # bytes a second: a body that arrives faster gets more time


class Deadlines:
    """ASGI middleware: cancels what takes too long and answers in its place.

    `deadline_s` counts from the end of the headers; `body_s` from the moment at which the body is
    first waited for, and grows with what has arrived.
    """

    def __init__(self, app: ASGIApp, deadline_s: float, body_s: float) -> None:
        self._app = app
        self._deadline_s = deadline_s
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        clock = asyncio.timeout(self._deadline_s)
        try:
            async with clock:
                body = _Body(receive, clock, self._body_s)
                await self._app(scope, body.receive, watched)
        except TimeoutError:
            if started or not clock.expired():
                raise
            late = (
                BodyTooSlow(f"{body.arrived} bytes of it arrived, then too little for too long")
                if body.is_awaited
                else DeadlineExceeded(f"there was no answer within {self._deadline_s:g} s")
            )
            await refusal(scope, late)(scope, receive, send)


class _Body:
    """Arrives under a clock of its own, which never runs longer than the request's."""

    def __init__(self, receive: Receive, clock: asyncio.Timeout, seconds: float) -> None:
        self._receive = receive
        self._clock = clock
        self._seconds = seconds
        self._deadline = clock.when() or 0.0
        self._began: float | None = None
        self._granted = 0  # bytes for which there was more time
        self._is_whole = False
        self.arrived = 0

    @property
    def is_awaited(self) -> bool:
        return self._began is not None and not self._is_whole

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        if self._began is None:
            self._began = asyncio.get_running_loop().time()
            self._ring_at(self._began + self._seconds)
        message = await self._receive()
        self.arrived += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._is_whole = True
            self._ring_at(self._deadline)
        elif self.arrived - self._granted >= SLOWEST:
            self._granted = self.arrived
            self._ring_at(self._began + self._seconds + self.arrived / SLOWEST)
        return message

    def _ring_at(self, when: float) -> None:
        if not self._clock.expired():
            self._clock.reschedule(min(when, self._deadline))
