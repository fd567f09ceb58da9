import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.middleware.rate_limit import MAX_CLIENTS, RateLimit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_then_one_for_each_interval():
    clock = Clock()
    limit = RateLimit(per_second=2, burst=3, clock=clock)
    assert [limit.take("a") for _ in range(3)] == [0, 0, 0]
    assert limit.take("a") == pytest.approx(0.5)
    clock.now += 0.25
    assert limit.take("a") == pytest.approx(0.25)  # a rejected request takes no token
    clock.now += 0.25
    assert limit.take("a") == 0
    assert limit.take("a") > 0


def test_a_pause_fills_the_bucket_and_no_more():
    clock = Clock()
    limit = RateLimit(per_second=1, burst=2, clock=clock)
    for _ in range(3):
        assert [limit.take("a") > 0 for _ in range(3)] == [False, False, True]
        clock.now += 3600


def test_a_token_that_is_given_back_can_be_taken_again_and_none_is_gained():
    limit = RateLimit(per_second=1, burst=2, clock=Clock())
    for _ in range(5):
        assert limit.take("a") == 0
        limit.give_back("a")
    limit.give_back("unknown")
    assert [limit.take("a") > 0 for _ in range(3)] == [False, False, True]


def test_memory_is_bounded_and_the_busiest_client_is_not_forgotten():
    clock = Clock()
    limit = RateLimit(per_second=1, burst=1, clock=clock)
    assert limit.take("busy") == 0
    for number in range(2 * MAX_CLIENTS):
        limit.take(f"client {number}")
        if number % 1000 == 0:
            assert limit.take("busy") > 0
    assert len(limit._full_at) == MAX_CLIENTS


@given(st.lists(st.floats(0, 2), max_size=60), st.integers(1, 5), st.floats(0.5, 20))
def test_no_window_exceeds_the_burst_and_the_rate(waits, burst, per_second):
    clock = Clock()
    limit = RateLimit(per_second, burst, clock)
    passed = []
    for wait in waits:
        clock.now += wait
        if limit.take("a") == 0:
            passed.append(clock.now)
    for start, first in enumerate(passed):
        for count, last in enumerate(passed[start:], start=1):
            assert count <= burst + (last - first) * per_second + 1e-3
