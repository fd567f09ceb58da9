import pytest

from service.errors import Overloaded, PayloadTooLarge
from service.inference.admission import Body, decode_workers, default_capacity
from tests.fakes import admission


def test_a_request_is_refused_when_every_slot_is_taken():
    limits = admission(capacity=1)
    with limits.slot():
        assert not limits.is_idle
        for context in (limits.request(), limits.slot()):
            with pytest.raises(Overloaded, match="1 requests are in progress"), context:
                pass
        with limits.body() as body:  # for requests that need no slot
            body.hold(1)
    with limits.request(), limits.request(), limits.slot():
        pass
    assert limits.is_idle


def test_releasing_the_last_slot_calls_on_idle():
    limits, seen = admission(), []
    limits.on_idle = lambda: seen.append(limits.is_idle)
    with limits.slot(), limits.slot():
        pass
    assert seen == [True]


def test_bytes_are_counted_as_they_arrive_and_until_the_request_ends():
    limits = admission(max_bytes=60, max_inflight_bytes=100)
    with limits.request() as first, limits.request() as second:
        first.expect(60)
        second.expect(60)  # nothing of either has arrived
        first.hold(60)
        with pytest.raises(Overloaded):
            second.expect(41)
        second.hold(40)
        second.hold(30)
        second.hold(40)
        with pytest.raises(Overloaded):
            second.hold(41)
        with pytest.raises(Overloaded, match="100 bytes are in flight, of at most 100"):
            limits.request().__enter__()
    with limits.request() as third:
        third.hold(60)


def test_an_error_releases_the_bytes():
    limits = admission(max_bytes=100, max_inflight_bytes=100)
    for _ in range(3):
        with pytest.raises(PayloadTooLarge), limits.request() as body:
            hold_twice(body)


def hold_twice(body: Body) -> None:
    body.hold(100)
    body.hold(101)


@pytest.mark.parametrize("max_inflight_bytes", [1, 100])
def test_the_largest_body_always_fits_alone(max_inflight_bytes):
    limits = admission(max_bytes=100, max_inflight_bytes=max_inflight_bytes)
    with limits.request() as body:
        body.hold(100)
        for refused in (body.expect, body.hold):
            with pytest.raises(PayloadTooLarge, match="larger than 100 bytes"):
                refused(101)


def test_the_default_capacity_follows_the_streams_and_the_threads():
    assert [decode_workers(threads) for threads in (1, 2, 5, 64)] == [1, 1, 2, 8]
    assert [default_capacity(1, threads) for threads in (1, 5, 64)] == [3, 4, 10]
    assert default_capacity(5, 5) == 12
