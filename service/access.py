"""ASGI middleware: give each request an id, and count it."""

import re
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics

REQUEST_ID: Final = "X-Request-ID"
SANE_ID: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)  # it goes into logs and headers
UNMATCHED: Final = "unmatched"
NOT_ANSWERED: Final = 499  # the task was cancelled before it answered


class CountRequests:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = asked if SANE_ID.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = NOT_ANSWERED

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        with self._metrics.in_flight():
            try:
                await self._app(scope, receive, tagged)
            finally:
                route = getattr(scope.get("route"), "path", UNMATCHED)
                self._metrics.count_request(route, scope["method"], status)
