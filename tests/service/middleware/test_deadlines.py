"""Bodies that do not come and answers that take too long, over a socket."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes import PATIENCE_S, FakeEngine, variants_of
from tests.service.http.test_detect import assert_problem, post
from tests.service.live import FP32_RAW, serving, two_variants, wait_until
from tests.service.pictures import encoded, jpeg, noise
from tests.service.raw import connected, head, upload
from tests.service.transport.test_protocol import trickling

TIMEOUT_S = 0.4


@pytest.fixture(scope="module")
def port():
    variants, *_ = two_variants()
    with serving(variants, body_timeout_s=TIMEOUT_S) as live:
        yield live.port


@pytest.mark.parametrize(
    ("framing", "text"),
    [
        ({"Content_Length": 1000}, "x" * 1000),
        ({"Transfer_Encoding": "chunked"}, "1\r\nx\r\n" * 200),
    ],
)
def test_a_body_that_trickles_in_is_cut_off(port, framing, text):
    with connected(port) as client:
        began = time.monotonic()
        client.send(head("POST", "/v1/detect", Content_Type="image/jpeg", **framing))
        with trickling(client, text):
            answer = client.answer()
            assert answer.status == 408
            assert answer.json()["type"] == "urn:qyolo:problem:body-too-slow"
            assert answer.headers["connection"] == "close"
            assert client.is_closed()
        assert TIMEOUT_S * 0.9 < time.monotonic() - began < TIMEOUT_S * 5


def test_a_large_body_that_keeps_coming_gets_the_time_it_needs(port):
    data = encoded(noise(500, 450), "JPEG", quality=95)
    size = 70_000
    assert len(data) > 3 * size
    with connected(port) as client:
        request = upload(data)
        for start in range(0, len(request), size):
            client.send(request[start : start + size])
            time.sleep(TIMEOUT_S * 0.7)
        assert client.answer().status == 200


def test_a_body_that_is_there_has_no_clock_any_more():
    engine = FakeEngine(FP32_RAW)
    with (
        serving(variants_of({"fp32": engine}), body_timeout_s=TIMEOUT_S / 4) as live,
        connected(live.port) as client,
    ):
        engine.gate.clear()
        client.send(upload(jpeg()))
        assert engine.entered.wait(PATIENCE_S)
        time.sleep(TIMEOUT_S)
        engine.gate.set()
        assert client.answer().status == 200


def test_an_answer_that_takes_too_long_is_504_and_what_had_not_begun_never_does():
    engine = FakeEngine(FP32_RAW)
    options = {"deadline_s": TIMEOUT_S, "capacity": 2}
    with serving(variants_of({"fp32": engine}), **options) as live, ThreadPoolExecutor(2) as pool:
        engine.gate.clear()
        first = pool.submit(post, live.client, jpeg())
        assert engine.entered.wait(PATIENCE_S)
        second = pool.submit(post, live.client, jpeg())
        for late in (first, second):
            problem = assert_problem(late.result(), 504)
            assert problem["type"] == "urn:qyolo:problem:deadline-exceeded"
        # The second's slot is free while the engine still holds the first's.
        assert post(live.client, jpeg()).status_code == 504
        engine.gate.set()
        later = []

        def recovered() -> bool:
            later.append(post(live.client, jpeg()).status_code)
            return later[-1] == 200

        wait_until(recovered)
        assert engine.calls <= 1 + len(later)


def test_a_connection_outlives_a_deadline():
    engine = FakeEngine(FP32_RAW)
    with (
        serving(variants_of({"fp32": engine}), deadline_s=TIMEOUT_S) as live,
        connected(live.port) as client,
    ):
        engine.gate.clear()
        client.send(upload(jpeg()))
        assert client.answer().status == 504
        engine.gate.set()
        client.send(head("GET", "/healthz"))
        assert client.answer().status == 200
