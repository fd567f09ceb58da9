"""ASGI middleware: give each request an id, count it, and log how it was answered."""

import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.public_paths import is_routine
from service.observability.metrics import Metrics
from service.observability.trace_context import ANSWER_HEADER, REQUEST_HEADER, Trace, read_trace

REQUEST_ID: Final = "X-Request-ID"
VARIANT: Final = b"x-qyolo-variant"  # how an endpoint tells which variant answered
SANE_ID: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)  # it goes into logs and headers
UNMATCHED: Final = "unmatched"
NOT_ANSWERED: Final = 499  # the task was cancelled before it answered

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Outcome:
    """What has been answered so far."""

    status: int = NOT_ANSWERED
    bytes: int = 0
    variant: str | None = None


class AccessLog:
    """Wraps the whole application. `trace_of` makes a trace of the traceparent header."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        trace_of: Callable[[str], Trace | None] = read_trace,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._trace_of = trace_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        headers = Headers(scope=scope)
        asked = headers.get(REQUEST_ID, "")
        request_id = asked if SANE_ID.fullmatch(asked) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        trace = self._trace_of(headers.get(REQUEST_HEADER, ""))
        outcome = _Outcome()

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                outcome.status = message["status"]
                outcome.variant = _variant(message)
                answer = MutableHeaders(scope=message)
                answer[REQUEST_ID] = request_id
                if trace is not None:
                    answer[ANSWER_HEADER] = str(trace)
            else:
                outcome.bytes += len(message.get("body", b""))
            await send(message)

        with self._metrics.in_flight():
            try:
                await self._app(scope, receive, tagged)
            finally:
                route = _route(scope)
                self._metrics.count_request(route, scope["method"], outcome.status)
                _log(scope, route, outcome, perf_counter() - began, trace)


def _log(scope: Scope, route: str, outcome: _Outcome, seconds: float, trace: Trace | None) -> None:
    level = logging.DEBUG if is_routine(scope["path"]) else logging.INFO
    if not log.isEnabledFor(level):
        return
    client, state = scope.get("client"), scope["state"]
    fields = {
        "method": scope["method"],
        "route": route,
        "status": outcome.status,
        "ms": round(seconds * 1000, 1),
        "bytes": outcome.bytes,
        "client": client and client[0],
        "request_id": state["request_id"],
        "variant": outcome.variant,
        "key": state.get("key"),
        "trace_id": trace and trace.trace_id,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    log.log(level, "answered", extra={"fields": known})


def _variant(message: Message) -> str | None:
    for name, value in message["headers"]:
        if name == VARIANT:
            return str(value, "latin-1")
    return None


def _route(scope: Scope) -> str:
    """The template of the path: what a client makes up is never a label.

    A request that was refused on its way to the router is matched here.
    """
    route = scope.get("route")
    if route is None:
        matches = (r for r in scope["app"].routes if r.matches(scope)[0] is not Match.NONE)
        route = next(matches, None)
    return getattr(route, "path", UNMATCHED)
