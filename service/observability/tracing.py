"""OpenTelemetry: a span for each request, and below it one for each stage of an image.

FastAPI makes the spans of requests. The SDK is imported, and needs to be installed, only where
traces are on.
"""

import logging
import os
import secrets
from collections.abc import Container, Iterator
from contextlib import contextmanager
from time import time_ns
from typing import Final

from fastapi.telemetry import TelemetryConfig
from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError
from service.inference.timings import WATCHER, Stage

Tracing = trace.TracerProvider

TRACEPARENT: Final = "traceparent"  # W3C Trace Context: the caller's span
TRACERESPONSE: Final = "traceresponse"  # its level 2: this server's span
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
QUERY: Final = "url.query"  # an attribute of FastAPI's span; a roboflow client's query has its key
W3C: Final = TraceContextTextMapPropagator()

log = logging.getLogger(__name__)


class TelemetryMissing(ServiceError):
    """Traces are on, but their packages are not installed."""


@contextmanager
def tracing(otel: bool) -> Iterator[Tracing | None]:
    """Export spans over OTLP as the OTEL_* variables say, if `otel` is set or an ENDPOINTS is.

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
        log.warning(missing)  # a cluster may set the variables for every process
        yield None
        return
    name = os.environ.get("OTEL_SERVICE_NAME", "qyolo")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider
    finally:
        provider.shutdown()  # exports the spans that are still queued


def request_spans(provider: Tracing | None, routine: Container[str] = ()) -> TelemetryConfig:
    """FastAPI's configuration: spans of requests, except for `routine` paths, and nothing else."""
    return {
        "tracing": provider is not None,
        "tracer_provider": provider,
        "metrics": False,  # Prometheus has them
        "logs": False,  # they would contain error messages, which only our own log may
        "operation_spans": False,
        "auto_configure": False,
        "exclude": lambda scope: scope.get("path", "") in routine,
    }


def trace_response(traceparent: str) -> str | None:
    """The traceresponse: version, trace, span and flags of the current span, joined by hyphens.

    Without a span it continues the trace of the header with a new span id; None without a trace.
    """
    span = trace.get_current_span().get_span_context()
    span_id = span.span_id
    if not span.is_valid and traceparent:
        span = trace.get_current_span(W3C.extract({TRACEPARENT: traceparent})).get_span_context()
        span_id = secrets.randbits(64)
    if not span.is_valid:
        return None
    trace_id = trace.format_trace_id(span.trace_id)
    return f"00-{trace_id}-{trace.format_span_id(span_id)}-{span.trace_flags:02x}"


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
        parent = context.get_current()

        def record(stage: Stage, seconds: float) -> None:
            end = time_ns()
            start = end - int(seconds * 1e9)
            self._tracer.start_span(stage, context=parent, start_time=start).end(end)

        watcher = WATCHER.set(record)
        try:
            await self._app(scope, receive, send)
        finally:
            WATCHER.reset(watcher)
