"""Capacity, and clients that disconnect before their response."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.fakes import FakeEngine, variants_of
from tests.service.live import FP32_RAW, assert_problem, post, sample, samples, serving, stalled
from tests.service.pictures import jpeg
from tests.service.raw import connected, head, upload
from tests.waiting import WAIT_LIMIT_S, wait_until


@pytest.fixture
def engine():
    return FakeEngine(FP32_RAW)


def in_flight(client: httpx.Client) -> float:
    return sample(samples(client), "qyolo_requests_in_flight")


@contextmanager
def sent(port: int, *pieces: str | bytes) -> Iterator[None]:
    """A client that disconnects without a response when the block ends."""
    with connected(port) as client:
        client.send(*pieces)
        yield


def test_at_capacity_a_request_gets_429_at_once_and_a_later_one_succeeds(engine):
    with serving(variants_of({"fp32": engine}), capacity=1) as live:
        with stalled(engine, live) as request:
            response = post(live.client, jpeg())
            assert response.headers["retry-after"] == "1"
            assert_problem(response, 429)
            assert live.client.get("/healthz").status_code == 200
            engine.gate.set()
            assert request.result().status_code == 200
        assert post(live.client, jpeg()).status_code == 200


def test_a_disconnected_request_in_the_engine_counts_until_the_engine_returns(engine):
    with serving(variants_of({"fp32": engine}), capacity=1) as live:
        engine.gate.clear()
        with sent(live.port, upload(jpeg())):
            assert engine.entered.wait(WAIT_LIMIT_S)
        wait_until(lambda: in_flight(live.client) == 1)
        assert post(live.client, jpeg()).status_code == 429
        engine.gate.set()
        wait_until(lambda: post(live.client, jpeg()).status_code == 200)


def test_a_disconnected_request_in_the_queue_is_never_inferred(engine):
    with serving(variants_of({"fp32": engine}), capacity=2) as live:
        with stalled(engine, live) as request:
            with sent(live.port, upload(jpeg())):
                wait_until(lambda: in_flight(live.client) == 3)
                time.sleep(0.1)  # nothing shows from outside that it has reached the queue
            wait_until(lambda: in_flight(live.client) == 2)
            engine.gate.set()
            assert request.result().status_code == 200
        assert post(live.client, jpeg()).status_code == 200
    assert engine.calls == 2


def test_a_client_that_disconnects_within_its_body_is_counted_as_499(engine):
    with serving(variants_of({"fp32": engine}), capacity=1) as live:
        start = head("POST", "/v1/detect", Content_Type="image/jpeg", Content_Length=1000)
        with sent(live.port, start, "abc"):
            wait_until(lambda: in_flight(live.client) == 2)
        wait_until(lambda: in_flight(live.client) == 1)
        assert post(live.client, jpeg()).status_code == 200
        lost = {"route": "/v1/detect", "method": "POST", "status": "499"}
        assert sample(samples(live.client), "qyolo_http_requests_total", **lost) == 1
