"""The W3C trace context, and spans as OpenTelemetry's own SDK collects them."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from service.errors import EngineFailed
from service.observability.tracing import trace_response
from tests.fakes import FakeEngine, variants_of
from tests.service.live import FP32_RAW, post, serving
from tests.service.pictures import jpeg
from tests.waiting import wait_until

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ACCESS_LOG = "service.middleware.access_log"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"


class Traced:
    """A tracer provider, and the spans that it ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def spans(self, name: str) -> list[ReadableSpan]:
        """Wait for the request's span of this name; it comes first, then its children."""

        def ended() -> list[ReadableSpan]:
            return [each for each in self._exporter.get_finished_spans() if each.name == name]

        wait_until(lambda: bool(ended()))
        (server,) = ended()
        children = [
            span
            for span in self._exporter.get_finished_spans()
            if span.parent is not None and span.parent.span_id == server.context.span_id
        ]
        self._exporter.clear()
        return [server, *sorted(children, key=lambda span: span.start_time)]


@pytest.fixture(scope="module")
def traced():
    return Traced()


@pytest.fixture(scope="module")
def client(traced):
    with serving(traces=traced.provider) as live:
        yield live.client


def test_the_stages_of_an_image_are_children_of_its_request(client, traced):
    response = post(client, jpeg(), headers={"traceparent": TRACEPARENT})
    server, *stages = traced.spans("POST /v1/detect")
    assert server.kind is SpanKind.SERVER
    assert f"{server.context.trace_id:032x}" == TRACE
    assert f"{server.parent.span_id:016x}" == CALLER
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["qyolo.request_id"] == response.headers["x-request-id"]
    names = [stage.name for stage in stages if stage.name != "queue"]
    assert names == ["decode", "preprocess", "infer", "postprocess"]
    assert len(stages) == 4 + 2  # one for a decode worker, one for the engine
    for stage in stages:
        assert server.start_time <= stage.start_time <= stage.end_time <= server.end_time
    timings = response.json()["timings_ms"]
    for stage in stages:
        if stage.name != "queue":
            seconds = (stage.end_time - stage.start_time) / 1e6
            assert seconds == pytest.approx(timings[stage.name], abs=0.01)


def test_the_response_and_the_log_name_the_span(client, traced, caplog):
    caplog.set_level("INFO", logger=ACCESS_LOG)
    response = post(client, jpeg())
    server = traced.spans("POST /v1/detect")[0]
    trace_id, span_id = f"{server.context.trace_id:032x}", f"{server.context.span_id:016x}"
    flags = f"{server.context.trace_flags:02x}"
    assert response.headers["traceresponse"] == f"00-{trace_id}-{span_id}-{flags}"
    wait_until(lambda: any(each.name == ACCESS_LOG for each in caplog.records))
    (line,) = (each.fields for each in caplog.records if each.name == ACCESS_LOG)
    assert line["trace_id"] == trace_id


def test_routine_requests_have_no_spans(client, traced):
    for path in ("/healthz", "/readyz", "/metrics"):
        client.get(path)
    client.get("/v1/models")
    assert len(traced.spans("GET /v1/models")) == 1


def test_a_key_in_a_query_is_in_no_span(client, traced):
    client.get("/v1/models?api_key=secret&confidence=0.4")
    (server,) = traced.spans("GET /v1/models")
    assert "secret" not in str(dict(server.attributes))


def test_a_failure_marks_the_span_without_its_message():
    traced = Traced()
    engine = FakeEngine(FP32_RAW)
    engine.failure = EngineFailed("/root/secret")
    with serving(variants_of({"fp32": engine}), traces=traced.provider) as live:
        post(live.client, jpeg())
        server, *_ = traced.spans("POST /v1/detect")
    assert not server.status.is_ok
    assert "secret" not in server.to_json()


@pytest.mark.parametrize("header", [f"00-{TRACE}-{CALLER}", f"00-{'0' * 32}-{CALLER}-01"])
def test_an_invalid_traceparent_starts_no_trace(header):
    """OpenTelemetry parses it; a valid one is in test_access_log.py."""
    assert trace_response(header) is None
