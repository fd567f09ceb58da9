"""The log in both formats, and the line of each request."""

import io
import json
import logging
import re

import pytest

from service.errors import EngineFailed
from service.observability.logs import HUMAN, HumanFormatter, JsonFormatter
from tests.fakes import FakeEngine, variants_of
from tests.service.http.test_detect import post
from tests.service.live import FP32_RAW, serving, two_variants, wait_until
from tests.service.pictures import jpeg

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
KEY = "a-key-of-the-camera"


@pytest.fixture(scope="module")
def live():
    variants, *_ = two_variants()
    with serving(variants, api_keys=f"camera:{KEY}") as running:
        running.client.headers["X-API-Key"] = KEY
        yield running


@pytest.fixture
def lines(caplog):
    """The fields of the access log's lines, when there are so many: each follows its answer."""
    caplog.set_level(logging.INFO, logger="service.middleware.access_log")

    def fields() -> list[dict]:
        return [
            each.fields for each in caplog.records if each.name == "service.middleware.access_log"
        ]

    def found(count: int) -> list[dict]:
        wait_until(lambda: len(fields()) >= count)
        return fields()

    return found


def test_every_request_is_a_line_that_tells_how_it_was_answered(live, lines):
    headers = {"X-Request-ID": "a-1", "traceparent": TRACEPARENT}
    answer = post(live.client, jpeg(), "/v1/models/fp32/detect?conf=0.3", headers=headers)
    (line,) = lines(1)
    assert 0 < line.pop("ms") < 10_000
    assert line == {
        "method": "POST",
        "route": "/v1/models/{variant}/detect",
        "status": 200,
        "bytes": len(answer.content),
        "client": "127.0.0.1",
        "request_id": "a-1",
        "variant": "fp32",
        "key": "camera",
        "trace_id": TRACEPARENT.split("-")[1],
    }


def test_a_trace_is_handed_on_and_none_is_made_up(live):
    told = live.client.get("/healthz", headers={"traceparent": TRACEPARENT})
    version, trace_id, span_id, flags = told.headers["traceresponse"].split("-")
    assert (version, trace_id, flags) == ("00", TRACEPARENT.split("-")[1], "01")
    assert span_id != TRACEPARENT.split("-")[2]
    assert "traceresponse" not in live.client.get("/healthz").headers


def test_a_refusal_is_a_line_too_and_holds_no_key_and_no_path(live, lines):
    live.client.get("/v1/models?api_key=secret", headers={"X-API-Key": "secret"})
    live.client.get("/secret")
    refused, unmatched = lines(2)
    assert (refused["status"], refused["route"]) == (401, "/v1/models")
    assert "key" not in refused
    assert (unmatched["status"], unmatched["route"]) == (404, "unmatched")
    assert "secret" not in f"{refused} {unmatched}"


def test_probes_are_lines_at_debug_only(live, lines, caplog):
    for path in ("/healthz", "/readyz", "/metrics", "/v1/models"):
        live.client.get(path)
    assert [line["route"] for line in lines(1)] == ["/v1/models"]
    with caplog.at_level(logging.DEBUG, logger="service.middleware.access_log"):
        live.client.get("/healthz")
        assert [line["route"] for line in lines(2)] == ["/v1/models", "/healthz"]


def test_a_failure_is_logged_with_the_id_of_its_request(caplog):
    engine = FakeEngine(FP32_RAW)
    engine.failure = EngineFailed("no luck")
    with serving(variants_of({"fp32": engine})) as live:
        answer = post(live.client, jpeg())
    (error,) = (r for r in caplog.records if r.levelno == logging.ERROR)
    assert error.fields["request_id"] == answer.headers["x-request-id"]
    assert "no luck" in JsonFormatter().format(error)


def written(formatter: logging.Formatter, log: logging.Logger) -> io.StringIO:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    log.handlers, log.propagate = [handler], False
    return stream


def test_json_is_one_object_a_line_whatever_was_said():
    log = logging.getLogger("tests.json")
    stream = written(JsonFormatter(), log)
    log.warning('a "quoted"\nline %s', "é\u2028", extra={"fields": {"status": 200, "path": "x"}})
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["message"] == 'a "quoted"\nline é\u2028'
    assert (first["level"], first["logger"], first["status"]) == ("warning", "tests.json", 200)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first["time"])
    assert "two\nlines" in second["exception"]
    assert "Traceback" in second["exception"]


def test_a_line_to_read_has_its_fields_behind_the_message():
    log = logging.getLogger("tests.human")
    stream = written(HumanFormatter(HUMAN), log)
    log.warning("answered", extra={"fields": {"status": 200, "route": "/v1/detect"}})
    log.warning("plain")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("WARNING tests.human: answered status=200 route=/v1/detect")
    assert second.endswith("WARNING tests.human: plain")
