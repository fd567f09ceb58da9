"""What is in flight over a socket: uploads that stall, clients that disconnect, a full server."""

import gzip
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from select import select

import pytest

from service.errors import EngineFailed
from service.experiments.shadow import MAX_QUEUED
from service.inference.admission import Admission
from tests.fakes import FakeEngine, variants_of
from tests.service.bodies import REQUESTS
from tests.service.live import (
    FP32_RAW,
    Live,
    post,
    samples,
    serving,
    stalled,
    two_variants,
)
from tests.service.pictures import jpeg
from tests.service.raw import RawClient, connected, head, upload
from tests.waiting import WAIT_LIMIT_S, wait_until

MAX_BYTES, BUDGET = 100_000, 300_000
PART = bytes(40_000)
PADDED = jpeg() + bytes(90_000 - len(jpeg()))
NOT_SAMPLED = ("/v1/compare", "/v2/models/tiny/infer")


def admission(live: Live) -> Admission:
    return live.server.config.app.state.lifecycle.backend.admission


def raw_request(path: str) -> bytes:
    body, headers = REQUESTS[path]
    return upload(body, path, **{name.replace("-", "_"): value for name, value in headers.items()})


def lost(live: Live) -> float:
    """Requests whose client has disconnected."""
    return sum(
        value
        for (name, labels), value in samples(live.client).items()
        if name == "qyolo_http_requests_total" and ("status", "499") in labels
    )


@contextmanager
def limited(engine: FakeEngine | None = None, **settings: object) -> Iterator[Live]:
    variants = variants_of({"fp32": engine or FakeEngine(FP32_RAW)})
    limits = {"max_bytes": MAX_BYTES, "max_inflight_bytes": BUDGET}
    with serving(variants, **limits | settings) as live:
        yield live
        wait_until(lambda: admission(live).inflight_bytes == 0)
        wait_until(lambda: admission(live).is_idle)


def begin(client: RawClient, part: bytes = PART, length: int = 60_000) -> None:
    client.send(head("POST", "/v1/detect", Content_Type="image/jpeg", Content_Length=length), part)


def test_sixty_unfinished_uploads_hold_no_more_than_the_budget():
    with limited() as live, ExitStack() as stack:
        clients = [stack.enter_context(connected(live.port)) for _ in range(60)]
        for client in clients:
            begin(client)
        most = BUDGET // len(PART)
        sockets = {client.socket: client for client in clients}
        wait_until(lambda: len(select(sockets, (), (), 0)[0]) == 60 - most)
        for readable in select(sockets, (), (), 0)[0]:
            answer = sockets[readable].response()
            assert (answer.status, answer.headers["retry-after"]) == (429, "1")
            assert answer.json()["type"] == "urn:qyolo:problem:overloaded"
        assert admission(live).inflight_bytes == most * len(PART)


def test_the_upload_that_took_most_bytes_for_most_time_gives_way_to_another():
    """Slow uploads could lock out everyone else; a body without a length is counted too."""
    with limited() as live, ExitStack() as stack:
        start = head("POST", "/v1/detect", Content_Type="image/jpeg", Transfer_Encoding="chunked")
        clients = [stack.enter_context(connected(live.port)) for _ in range(4)]
        for number, client in enumerate(clients[:3], start=1):
            client.send(start, f"{MAX_BYTES:x}\r\n", bytes(MAX_BYTES), "\r\n")
            wait_until(lambda count=number: admission(live).inflight_bytes == count * MAX_BYTES)
        clients[3].send(start, "1\r\n", "x", "\r\n")
        assert clients[0].response().status == 429
        assert admission(live).inflight_bytes == 2 * MAX_BYTES + 1
        assert all(post(live.client, PADDED).status_code == 200 for _ in range(9))


def test_a_declared_length_that_does_not_fit_is_refused_before_the_first_byte():
    """Bodies that are complete do not give way."""
    engine = FakeEngine(FP32_RAW)
    with limited(engine) as live, ExitStack() as stack:
        clients = [stack.enter_context(connected(live.port)) for _ in range(5)]
        engine.gate.clear()
        for client in clients[:3]:
            client.send(upload(PADDED))
        wait_until(lambda: admission(live).inflight_bytes == 3 * len(PADDED))
        begin(clients[3], b"", 100_001)
        assert clients[3].response().status == 413
        begin(clients[4], b"", BUDGET - 3 * len(PADDED) + 1)
        assert clients[4].response().status == 429
        engine.gate.set()
        assert [client.response().status for client in clients[:3]] == [200] * 3


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (upload(b"no image"), 415),
        (upload(jpeg()), 200),
        (upload(PART, Content_Length=60_000), 408),
        (head("POST", "/v1/detect", Transfer_Encoding="chunked", Content_Type="image/jpeg")
         + "1ffff\r\n" + "x" * 0x1ffff, 413),
    ],
    ids=["error", "answer", "deadline", "too large"],
)  # fmt: skip
def test_the_bytes_are_released_with_the_answer(sent, status):
    with limited(body_timeout_s=0.1) as live, connected(live.port) as client:
        client.send(sent)
        assert client.response().status == status
        wait_until(lambda: admission(live).inflight_bytes == 0)


def test_a_client_that_disconnects_within_its_body_is_counted_as_499():
    with limited(capacity=1) as live:
        with connected(live.port) as client:
            begin(client)
            wait_until(lambda: admission(live).inflight_bytes == len(PART))
        wait_until(lambda: admission(live).inflight_bytes == 0)
        assert post(live.client, jpeg()).status_code == 200
        assert lost(live) == 1


@pytest.mark.parametrize("deadline_s", [30, 0.2], ids=["disconnect", "deadline"])
def test_a_cancelled_request_keeps_its_bytes_and_its_slot_until_the_engine_is_done(deadline_s):
    engine = FakeEngine(FP32_RAW)
    with limited(engine, capacity=1, deadline_s=deadline_s) as live:
        engine.gate.clear()
        with connected(live.port) as client:
            client.send(upload(jpeg()))
            assert engine.entered.wait(WAIT_LIMIT_S)
            if deadline_s < 1:
                assert client.response().status == 504
        wait_until(lambda: lost(live) == (deadline_s > 1))
        assert admission(live).inflight_bytes == len(jpeg())
        assert post(live.client, jpeg()).status_code == 429
        engine.gate.set()
        wait_until(lambda: post(live.client, jpeg()).status_code == 200)


def test_a_disconnected_request_in_the_queue_is_never_inferred():
    engine = FakeEngine(FP32_RAW)
    with limited(engine, capacity=2) as live:
        with stalled(engine, live) as request:
            with connected(live.port) as client:
                client.send(upload(jpeg()))
                wait_until(lambda: admission(live).is_full)
            wait_until(lambda: admission(live).inflight_bytes == len(jpeg()))
            engine.gate.set()
            assert request.result().status_code == 200
        assert post(live.client, jpeg()).status_code == 200
    assert engine.calls == 2


def test_stalled_uploads_take_no_slot():
    with limited(capacity=2) as live, ExitStack() as stack:
        for _ in range(6):
            begin(stack.enter_context(connected(live.port)), b"x")
        wait_until(lambda: admission(live).inflight_bytes == 6)
        assert post(live.client, jpeg()).status_code == 200


@pytest.mark.parametrize("path", REQUESTS)
def test_a_full_server_refuses_every_route_before_it_reads_the_body(path):
    engine = FakeEngine(FP32_RAW)
    body, _ = REQUESTS[path]
    with limited(engine, capacity=1) as live:
        engine.gate.clear()
        with connected(live.port) as first, connected(live.port) as second:
            first.send(raw_request(path))
            assert engine.entered.wait(WAIT_LIMIT_S)
            assert admission(live).inflight_bytes == len(body)
            second.send(raw_request(path).removesuffix(body))
            refused = second.response()
            assert refused.status == (503 if path.startswith("/v2") else 429)
            assert refused.headers["retry-after"] == "1"
            assert b"1 requests are in progress" in refused.body
            assert live.client.get("/healthz").status_code == 200
            engine.gate.set()
            assert first.response().status == 200
        assert post(live.client, jpeg()).status_code == 200


@pytest.mark.parametrize("failure", [EngineFailed("/root/secret"), RuntimeError("/root/secret")])
def test_a_failing_engine_is_500_on_every_route_and_the_response_says_no_more(failure):
    engine = FakeEngine(FP32_RAW)
    with limited(engine) as live:
        for path, (body, headers) in REQUESTS.items():
            engine.failure = None
            assert post(live.client, jpeg()).status_code == 200  # the failures are not in a row
            engine.failure = failure
            answer = live.client.post(path, content=body, headers=headers)
            assert answer.status_code == 500
            assert "its log says why" in answer.text
            assert "secret" not in answer.text


def test_a_body_that_is_inflated_counts_with_its_full_size():
    engine = FakeEngine(FP32_RAW)
    body, headers = REQUESTS["/v2/models/tiny/infer"]
    packed = gzip.compress(body)
    with limited(engine) as live, connected(live.port) as client:
        engine.gate.clear()
        client.send(upload(packed, "/v2/models/tiny/infer", Content_Encoding="gzip", **headers))
        assert engine.entered.wait(WAIT_LIMIT_S)
        assert len(packed) < admission(live).inflight_bytes == len(body)
        engine.gate.set()
        assert client.response().status == 200


@pytest.mark.parametrize("path", [path for path in REQUESTS if path not in NOT_SAMPLED])
def test_the_shadow_infers_an_image_unless_its_client_has_disconnected(path):
    variants, fp32, int8 = two_variants()
    with serving(variants, shadow="fp32:1") as live:
        for number in range(MAX_QUEUED + 1):
            int8.gate.clear()
            int8.entered.clear()
            with connected(live.port) as gone:
                gone.send(raw_request(path))
                assert int8.entered.wait(WAIT_LIMIT_S)
            wait_until(lambda count=number + 1: lost(live) == count)
            int8.gate.set()
            wait_until(lambda: admission(live).is_idle)
        assert fp32.calls == 0
        with connected(live.port) as client:
            client.send(raw_request(path))
            assert client.response().status == 200
        wait_until(lambda: fp32.calls == 1)
