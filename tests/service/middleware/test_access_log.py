"""The access log: one line for each request."""

import logging

import pytest

from tests.service.live import post, serving
from tests.service.pictures import jpeg
from tests.waiting import wait_until

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
KEY = "a-key-of-the-camera"
ACCESS_LOG = "service.middleware.access_log"


@pytest.fixture(scope="module")
def live():
    with serving(api_keys=f"camera:{KEY}") as running:
        running.client.headers["X-API-Key"] = KEY
        yield running


@pytest.fixture
def lines(caplog):
    """Waits for so many lines of the access log, which follow their responses."""
    caplog.set_level(logging.INFO, logger=ACCESS_LOG)

    def fields() -> list[dict]:
        return [each.fields for each in caplog.records if each.name == ACCESS_LOG]

    def found(count: int) -> list[dict]:
        wait_until(lambda: len(fields()) >= count)
        return fields()

    return found


def test_each_request_is_one_line(live, lines):
    headers = {"X-Request-ID": "a-1", "traceparent": TRACEPARENT}
    response = post(live.client, jpeg(), "/v1/models/fp32/detect?conf=0.3", headers=headers)
    (line,) = lines(1)
    assert 0 < line.pop("ms") < 10_000
    assert line == {
        "method": "POST",
        "route": "/v1/models/{variant}/detect",
        "status": 200,
        "bytes": len(response.content),
        "client": "127.0.0.1",
        "request_id": "a-1",
        "variant": "fp32",
        "key": "camera",
        "trace_id": TRACEPARENT.split("-")[1],
    }


def test_a_trace_continues_and_none_is_invented(live):
    response = live.client.get("/healthz", headers={"traceparent": TRACEPARENT})
    version, trace_id, span_id, flags = response.headers["traceresponse"].split("-")
    assert (version, trace_id, flags) == ("00", TRACEPARENT.split("-")[1], "01")
    assert span_id != TRACEPARENT.split("-")[2]
    assert "traceresponse" not in live.client.get("/healthz").headers


def test_no_line_contains_a_key_or_a_path(live, lines):
    live.client.get("/v1/models?api_key=secret", headers={"X-API-Key": "secret"})
    live.client.get("/secret")
    rejected, unmatched = lines(2)
    assert (rejected["status"], rejected["route"]) == (401, "/v1/models")
    assert "key" not in rejected
    assert (unmatched["status"], unmatched["route"]) == (404, "unmatched")
    assert "secret" not in f"{rejected} {unmatched}"


def test_routine_requests_are_logged_at_debug_level(live, lines, caplog):
    for path in ("/healthz", "/readyz", "/metrics", "/v1/models"):
        live.client.get(path)
    assert [line["route"] for line in lines(1)] == ["/v1/models"]
    with caplog.at_level(logging.DEBUG, logger=ACCESS_LOG):
        live.client.get("/healthz")
        assert [line["route"] for line in lines(2)] == ["/v1/models", "/healthz"]
