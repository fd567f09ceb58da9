"""Work that begins when an answer has been sent."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_WORK: Final[ContextVar[list[Callable[[], None]] | None]] = ContextVar("_WORK", default=None)


def afterwards(work: Callable[[], None]) -> None:
    """Call `work` when the current request has been answered; at once where there is none."""
    later = _WORK.get()
    if later is None:
        work()
    else:
        later.append(work)


class Afterwards:
    """ASGI middleware: holds such work back until the last byte has been handed to the socket."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        later: list[Callable[[], None]] = []
        token = _WORK.set(later)
        try:
            await self._app(scope, receive, send)
        finally:
            _WORK.reset(token)
            for work in later:
                work()
