"""Bodies that a parser of JSON takes seconds for, during which it holds the GIL."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.robustness.worst_inputs import BODIES
from tests.service.live import serving
from tests.service.raw import connected

LATE_S = 0.5  # each took more than a second; the processor may be busy


@pytest.fixture(scope="module")
def live():
    with serving(max_inflight_bytes=200 * 2**20) as live:
        yield live


def send(port: int, request: bytes) -> int:
    with connected(port) as client:
        client.send(request)
        return client.response().status


@pytest.mark.parametrize(
    "name",
    [
        "gzip of lists on /v2",
        "gzip of numbers on /v2",
        "JSON of unknown keys",
        "JSON of escapes",
        "Roboflow, lists",
        "form of almost boundaries",
    ],
)
def test_others_do_not_wait_for_a_large_body(live, name):
    request, slowest_s = BODIES[name]("tiny"), 0.0
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send, live.port, request)
        while not sent.done():
            began = time.monotonic()
            assert live.client.get("/healthz").status_code == 200
            slowest_s = max(slowest_s, time.monotonic() - began)
    assert 400 <= sent.result() < 500
    assert slowest_s < LATE_S
