from contextlib import ExitStack, suppress
from contextvars import copy_context

import pytest

from service.errors import Overloaded, PayloadTooLarge
from service.inference.admission import READY, Admission, Body, decode_workers, default_capacity
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
    limits.on_idle.add(lambda: seen.append(limits.is_idle))
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


HOUR_S = 3600.0


def fill(limits: Admission, stack: ExitStack) -> int:
    """Take slots until one is refused; how many there were."""
    count = 0
    with suppress(Overloaded):
        while True:
            stack.enter_context(limits.slot())
            count += 1
    return count


@pytest.mark.parametrize(("streams", "most"), [(1, 3), (4, 9)])
def test_until_an_image_is_measured_two_for_each_stream_may_be_before_a_request(streams, most):
    limits = admission(None, max_wait_s=HOUR_S, ready=READY * streams)
    with ExitStack() as stack:
        assert fill(limits, stack) == most
        with pytest.raises(Overloaded, match="the predicted wait is") as refusal:
            limits.request().__enter__()
        assert HOUR_S < int(refusal.value.headers["Retry-After"]) < 2 * HOUR_S
        assert limits.predicted_wait_s > HOUR_S
        assert not limits.is_full
    assert limits.predicted_wait_s == 0


def test_a_request_of_several_images_is_admitted_with_all_of_them():
    limits = admission(None, max_wait_s=HOUR_S)
    others = copy_context()
    with limits.request(), ExitStack() as stack:
        limits.expect_images(2)
        with suppress(ValueError), limits.slot():
            assert others.run(fill, limits, stack) == 1
            raise ValueError  # so that nothing is measured, and the queue stays full
        assert others.run(fill, limits, stack) == 2
        with limits.slot():
            assert others.run(fill, limits, stack) == 0
