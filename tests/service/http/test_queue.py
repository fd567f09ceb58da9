"""A queue bounded by time, over a socket: who is refused, and who is next."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from service.http.exchange import DEADLINE_HEADER
from service.inference import pipeline
from tests.fakes import FakeEngine, variants_of
from tests.service.live import (
    FP32_RAW,
    Live,
    assert_problem,
    post,
    sample,
    samples,
    serving,
    stalled,
)
from tests.service.pictures import jpeg
from tests.service.raw import RawClient, connected, upload
from tests.waiting import WAIT_LIMIT_S, wait_until

KEYS = "greedy:0123456789abcdef,other:fedcba9876543210"
GREEDY, OTHER = ({"X_API_Key": key.partition(":")[2]} for key in KEYS.split(","))
HOUR = {"capacity": 0, "max_wait_ms": 3_600_000}  # until one is measured, an image takes half of it
UNMEASURED = 3  # requests that then fit: one in the engine and two more


class Turnstile(FakeEngine):
    """Each inference waits for a permit."""

    def __init__(self) -> None:
        super().__init__(FP32_RAW)
        self.permits = threading.Semaphore(0)

    def _answer(self):
        self.entered.set()
        assert self.permits.acquire(timeout=WAIT_LIMIT_S)
        return super()._answer()


@contextmanager
def served(engine: FakeEngine, **settings: object) -> Iterator[Live]:
    with serving(variants_of({"fp32": engine}), **settings) as live:
        yield live


def queued(live: Live) -> int:
    return live.server.config.app.state.lifecycle.backend.admission.in_progress


def send(
    stack: ExitStack, live: Live, count: int, source: str = "127.0.0.1", **headers: str
) -> list[RawClient]:
    """Requests on connections of their own, which are in the queue when this returns."""
    before = queued(live)
    clients = [stack.enter_context(connected(live.port, source)) for _ in range(count)]
    for client in clients:
        client.send(upload(jpeg(), **headers))
    wait_until(lambda: queued(live) == before + count)
    return clients


def refused(live: Live, **headers: str) -> int:
    """The Retry-After of a request that is refused before its body is sent."""
    with connected(live.port) as client:
        client.send(upload(jpeg(), **headers).removesuffix(jpeg()))
        answer = client.response()
        assert answer.status == 429
        assert "the predicted wait is" in answer.json()["detail"]
        return int(answer.headers["retry-after"])


def test_what_would_wait_too_long_is_refused_and_retry_after_is_the_predicted_wait():
    engine = FakeEngine(FP32_RAW)
    with served(engine, **HOUR) as live, ExitStack() as stack:
        engine.gate.clear()
        clients = send(stack, live, UNMEASURED)
        assert 5000 < refused(live) <= 5400
        engine.gate.set()
        assert [client.response().status for client in clients] == [200] * UNMEASURED
        engine.gate.clear()
        later = send(stack, live, 20)  # they have been measured, so that more of them fit
        engine.gate.set()
        assert [client.response().status for client in later] == [200] * 20


def test_a_greedy_client_cannot_lock_out_another_one():
    engine = FakeEngine(FP32_RAW)
    with served(engine, api_keys=KEYS, **HOUR) as live, ExitStack() as stack:
        engine.gate.clear()
        clients = send(stack, live, UNMEASURED, **GREEDY)
        for _ in range(5):
            refused(live, **GREEDY)
        clients += send(stack, live, 1, **OTHER)
        refused(live, **GREEDY)
        engine.gate.set()
        assert [client.response().status for client in clients] == [200] * 4


@pytest.mark.parametrize("limits", [HOUR, {"capacity": 64}], ids=["time", "number"])
def test_one_image_is_served_before_what_a_greedy_client_has_queued(limits, monkeypatch):
    monkeypatch.setattr(pipeline, "decode_workers", lambda threads: 0)  # one thread, one order
    engine = Turnstile()
    with served(engine, api_keys=KEYS, **limits) as live, ExitStack() as stack:
        engine.permits.release()
        measured = stack.enter_context(connected(live.port))
        measured.send(upload(jpeg(), **GREEDY))
        assert measured.response().status == 200
        engine.entered.clear()
        greedy = send(stack, live, 20, **GREEDY)
        assert engine.entered.wait(WAIT_LIMIT_S)
        (other,) = send(stack, live, 1, **OTHER)
        engine.permits.release(2)
        assert other.response().status == 200
        assert queued(live) == 19
        engine.permits.release(19)
        assert [client.response().status for client in greedy] == [200] * 20


def test_addresses_are_clients_where_there_are_no_keys():
    engine = FakeEngine(FP32_RAW)
    with served(engine, **HOUR) as live, ExitStack() as stack:
        engine.gate.clear()
        clients = send(stack, live, UNMEASURED)
        for number in range(3):  # a name that it makes up does not make it another client
            refused(live, X_Qyolo_Client=str(number))
        clients += send(stack, live, 1, source="127.0.0.2")
        engine.gate.set()
        assert [client.response().status for client in clients] == [200] * 4


def test_a_queue_that_does_not_move_is_joined_by_nobody_and_recovers():
    engine = FakeEngine(FP32_RAW)
    with served(engine, capacity=0) as live:
        with stalled(engine, live) as request:
            wait_until(lambda: sample(samples(live.client), "qyolo_predicted_wait_seconds") > 1)
            assert refused(live) >= 2
            engine.gate.set()
            assert request.result().status_code == 200
        assert post(live.client, jpeg()).status_code == 200
        assert sample(samples(live.client), "qyolo_predicted_wait_seconds") == 0


def test_the_capacity_limits_the_number_and_without_a_limit_of_the_wait_only_that():
    for limits, fit in (({"capacity": 8}, 8), (HOUR | {"capacity": 2}, 2), (HOUR, UNMEASURED)):
        engine = FakeEngine(FP32_RAW)
        with served(engine, **limits) as live, ExitStack() as stack:
            engine.gate.clear()
            clients = send(stack, live, fit)
            assert post(live.client, jpeg()).status_code == 429
            engine.gate.set()
            assert [client.response().status for client in clients] == [200] * fit


def test_waits_are_counted():
    with served(FakeEngine(FP32_RAW)) as live:
        for _ in range(3):
            post(live.client, jpeg())
        found = samples(live.client)
        assert sample(found, "qyolo_queue_wait_seconds_count") == 3
        assert sample(found, "qyolo_queue_wait_seconds_bucket", le="0.1") <= 3


# Deadlines that a request names


def test_a_request_that_cannot_be_answered_before_its_deadline_is_refused_at_once():
    engine = FakeEngine(FP32_RAW)
    with served(engine, **HOUR) as live, ExitStack() as stack:
        engine.gate.clear()
        clients = send(stack, live, 1, X_Qyolo_Deadline_Ms="1")  # nothing is before it
        refused(live, X_Qyolo_Deadline_Ms="9000")
        clients += send(stack, live, 1)
        engine.gate.set()
        assert [client.response().status for client in clients] == [200] * 2


@pytest.mark.parametrize("text", ["0", "000", "-1", "1.5", "soon", "", "1" * 10, "٣"])
def test_a_deadline_that_is_no_number_of_milliseconds_is_422(client, text):
    answer = post(client, jpeg(), headers={DEADLINE_HEADER: text.encode()})
    assert DEADLINE_HEADER in assert_problem(answer, 422, "invalid-request")["detail"]
