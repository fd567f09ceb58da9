"""Slow bodies and slow responses, over a socket."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes import FakeEngine, variants_of
from tests.service.live import FP32_RAW, assert_problem, post, serving, stalled
from tests.service.pictures import encoded, jpeg, noise
from tests.service.raw import connected, head, upload
from tests.waiting import WAIT_LIMIT_S, wait_until

TIMEOUT_S = 0.4


@pytest.fixture(scope="module")
def port():
    with serving(body_timeout_s=TIMEOUT_S) as live:
        yield live.port


@pytest.fixture
def engine():
    return FakeEngine(FP32_RAW)


@pytest.mark.parametrize(
    ("framing", "text"),
    [
        ({"Content_Length": 1000}, "x" * 1000),
        ({"Transfer_Encoding": "chunked"}, "1\r\nx\r\n" * 200),
    ],
)
def test_a_body_that_trickles_in_gets_408(port, framing, text):
    with connected(port) as client:
        began = time.monotonic()
        client.send(head("POST", "/v1/detect", Content_Type="image/jpeg", **framing))
        with client.trickling(text):
            response = client.response()
            assert response.status == 408
            assert response.json()["type"] == "urn:qyolo:problem:body-too-slow"
            assert response.headers["connection"] == "close"
            assert client.is_closed()
        assert TIMEOUT_S * 0.9 < time.monotonic() - began < TIMEOUT_S * 5


def test_a_large_body_gets_more_time_while_it_arrives(port):
    data = encoded(noise(500, 450), "JPEG", quality=95)
    size = 70_000
    assert len(data) > 3 * size
    with connected(port) as client:
        request = upload(data)
        for start in range(0, len(request), size):
            client.send(request[start : start + size])
            time.sleep(TIMEOUT_S * 0.7)
        assert client.response().status == 200


def test_the_body_s_time_limit_ends_with_the_body(engine):
    limits = {"body_timeout_s": TIMEOUT_S / 4}
    with serving(variants_of({"fp32": engine}), **limits) as live:
        with stalled(engine, live) as request:
            time.sleep(TIMEOUT_S)
        assert request.result().status_code == 200


def test_after_the_deadline_a_request_gets_504_and_is_not_inferred(engine):
    limits = {"deadline_s": TIMEOUT_S, "capacity": 2}
    with serving(variants_of({"fp32": engine}), **limits) as live, ThreadPoolExecutor(2) as pool:
        engine.gate.clear()
        first = pool.submit(post, live.client, jpeg())
        assert engine.entered.wait(WAIT_LIMIT_S)
        second = pool.submit(post, live.client, jpeg())
        for late in (first, second):
            assert_problem(late.result(), 504, "deadline-exceeded")
        # The second's slot is free while the engine still holds the first's.
        assert post(live.client, jpeg()).status_code == 504
        engine.gate.set()
        later = []

        def recovered() -> bool:
            later.append(post(live.client, jpeg()).status_code)
            return later[-1] == 200

        wait_until(recovered)
        assert engine.calls <= 1 + len(later)


def test_a_connection_stays_open_after_a_deadline(engine):
    with (
        serving(variants_of({"fp32": engine}), deadline_s=TIMEOUT_S) as live,
        connected(live.port) as client,
    ):
        engine.gate.clear()
        client.send(upload(jpeg()))
        assert client.response().status == 504
        engine.gate.set()
        client.send(head("GET", "/healthz"))
        assert client.response().status == 200
