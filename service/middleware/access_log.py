"""ASGI middleware: give each request an id and its trace, count it, and log its response."""

import asyncio
import logging
import re
import uuid
from collections.abc import Container
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.exchange import INSTEAD_OF, VARIANT_HEADER
from service.observability.metrics import Metrics
from service.observability.tracing import TRACEPARENT, TRACERESPONSE, trace_response

REQUEST_ID: Final = "X-Request-ID"
VALID_ID: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)  # safe in logs and headers
UNMATCHED: Final = "unmatched"
NO_RESPONSE: Final = 499  # the request was cancelled before its response began

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Response:
    """What has been sent so far."""

    status: int = NO_RESPONSE
    bytes: int = 0
    variant: str | None = None


class AccessLog:
    """The outermost middleware; requests for `routine` paths are logged at debug level only."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routine: Container[str] = ()) -> None:
        self._app = app
        self._metrics = metrics
        self._routine = routine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        headers = Headers(scope=scope)
        sent_id = headers.get(REQUEST_ID, "")
        request_id = sent_id if VALID_ID.fullmatch(sent_id) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        trace = trace_response(headers.get(TRACEPARENT, ""))
        response = _Response()

        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                response.status = message["status"]
                out = MutableHeaders(scope=message)
                response.variant = out.get(VARIANT_HEADER)
                out[REQUEST_ID] = request_id
                if (instead_of := scope["state"].get("instead_of")) is not None:
                    out[INSTEAD_OF] = instead_of
                if trace is not None:
                    out[TRACERESPONSE] = trace
            else:
                response.bytes += len(message.get("body", b""))
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, recorded)
            except asyncio.CancelledError:
                raise
            except BaseException:  # no handler answers it, so the protocol sends status 500
                if response.status == NO_RESPONSE:
                    response.status = 500
                raise
            finally:
                route = _route(scope)
                self._metrics.count_request(route, scope["method"], response.status)
                self._log(scope, route, response, perf_counter() - start, trace)

    def _log(
        self, scope: Scope, route: str, response: _Response, seconds: float, trace: str | None
    ) -> None:
        level = logging.DEBUG if scope["path"] in self._routine else logging.INFO
        if not log.isEnabledFor(level):
            return
        client, state = scope.get("client"), scope["state"]
        fields = {
            "method": scope["method"],
            "route": route,
            "status": response.status,
            "ms": round(seconds * 1000, 1),
            "bytes": response.bytes,
            "client": client and client[0],
            "request_id": state["request_id"],
            "variant": response.variant,
            "instead_of": state.get("instead_of"),
            "key": state.get("key"),
            "trace_id": trace and trace.split("-")[1],
        }
        known = {name: value for name, value in fields.items() if value is not None}
        log.log(level, "answered", extra={"fields": known})


def _route(scope: Scope) -> str:
    """The path's template: a path itself, which clients make up, must not become a metric label.

    A request that a middleware refused has not been routed; it is matched here.
    """
    route = scope.get("route")
    if route is None:
        matches = (r for r in scope["app"].routes if r.matches(scope)[0] is not Match.NONE)
        route = next(matches, None)
    return getattr(route, "path", UNMATCHED)
