"""OpenTelemetry: a span for each request, and in it one for each stage of an image.

FastAPI makes the spans of requests. Where nobody asks for traces the SDK is not imported, and need
not be installed.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time_ns
from typing import Final

from fastapi.telemetry import TelemetryConfig
from opentelemetry import context, trace
from opentelemetry.context import Context
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError
from service.http.public_paths import is_routine
from service.inference.timings import WATCHER, Stage
from service.observability.trace_context import Trace, read_trace

Tracing = trace.TracerProvider

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
QUERY: Final = "url.query"  # FastAPI's span has it, and a roboflow client's key is in it

log = logging.getLogger(__name__)


class TelemetryMissing(ServiceError):
    """Traces are asked for, and the packages are not installed."""


@contextmanager
def tracing(otel: bool) -> Iterator[Tracing | None]:
    """What sends spans over OTLP, as the OTEL_* variables say, if `otel` or one of them asks.

    Raises TelemetryMissing.
    """
    if not (otel or any(os.environ.get(name) for name in ENDPOINTS)):
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        missing = "traces need the extra otel: pip install 'qyolo[otel]'"
        if otel:
            raise TelemetryMissing(missing) from exc
        log.warning(missing)  # a cluster sets the variables for all that run in it
        yield None
        return
    name = os.environ.get("OTEL_SERVICE_NAME", "qyolo")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider
    finally:
        provider.shutdown()  # sends what it still has


def request_spans(provider: Tracing | None) -> TelemetryConfig:
    """What FastAPI is to do: spans of requests and nothing else, or nothing."""
    return {
        "tracing": provider is not None,
        "tracer_provider": provider,
        "metrics": False,  # Prometheus has them
        "logs": False,  # they would hold messages of errors, which are for our own log
        "operation_spans": False,
        "auto_configure": False,
        "exclude": lambda scope: is_routine(scope.get("path", "")),
    }


def current_trace(traceparent: str) -> Trace | None:
    """The trace of the current span; where there is none, that of the header."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return read_trace(traceparent)
    return Trace(f"{span.trace_id:032x}", f"{span.span_id:016x}", f"{span.trace_flags:02x}")


class TraceStages:
    """ASGI middleware: the stages of a request's image become children of its span."""

    def __init__(self, app: ASGIApp, provider: Tracing) -> None:
        self._app = app
        self._tracer = provider.get_tracer("qyolo")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = trace.get_current_span()
        if scope["type"] != "http" or not span.is_recording():
            await self._app(scope, receive, send)
            return
        span.set_attribute("qyolo.request_id", scope["state"]["request_id"])
        if b"api_key" in scope["query_string"]:
            span.set_attribute(QUERY, "REDACTED")
        watcher = WATCHER.set(self._recorder(context.get_current()))
        try:
            await self._app(scope, receive, send)
        finally:
            WATCHER.reset(watcher)

    def _recorder(self, parent: Context) -> Callable[[Stage, float], None]:
        def record(stage: Stage, seconds: float) -> None:
            end = time_ns()
            start = end - int(seconds * 1e9)
            self._tracer.start_span(stage, context=parent, start_time=start).end(end)

        return record
