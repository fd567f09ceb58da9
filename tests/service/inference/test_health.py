import pytest

from service.inference.health import FAILURES, HANGS, LONGEST_PAUSE_S, Health


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def broken(clock: Clock) -> Health:
    health = Health(clock)
    for _ in range(FAILURES):
        health.failed("errors")
    return health


def test_failures_in_a_row_break_an_engine_and_others_do_not(clock):
    health = Health(clock)
    for _ in range(10):
        for _ in range(FAILURES - 1):
            health.failed("errors")
        health.succeeded()
    assert health.broken is None
    assert health.failing_since is None
    assert broken(clock).broken == "errors"


def test_it_is_loaded_again_at_once_and_then_after_pauses_that_double(clock):
    health, pauses = broken(clock), []
    for _ in range(12):
        last = clock.now
        while not health.is_due():
            clock.now += 0.5
        pauses.append(clock.now - last)
        health.not_loaded()
    assert pauses[:5] == [0, 0.5, 1, 2, 4]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert health.broken == "errors"
    assert health.failing_since == 1000


def test_on_trial_one_failure_is_enough_and_the_pauses_grow(clock):
    health, since = broken(clock), clock.now
    health.loaded()
    assert health.broken is None
    clock.now += 10
    health.failed("errors")
    assert health.broken == "errors"
    assert health.failing_since == since
    health.loaded()
    health.failed("errors")
    assert not health.is_due()
    clock.now += 1
    assert health.is_due()


def test_a_success_ends_the_trial(clock):
    health = broken(clock)
    health.succeeded()  # of the old engine, in another stream
    assert health.broken
    health.loaded()
    health.succeeded()
    assert health.failing_since is None
    health.failed("errors")
    assert health.broken is None


def test_one_hang_breaks_an_engine_and_many_are_the_end(clock):
    health = Health(clock)
    for _ in range(HANGS):
        assert not health.is_due()
        health.hangs("it hangs")
        assert health.broken == "it hangs"
        clock.now += 100
        last, due = health, health.is_due()
        health.loaded()
    assert last.failing_since == 1000
    assert not due


def test_an_inference_that_returns_late_heals(clock):
    health = Health(clock)
    health.hangs("it hangs")
    health.returned()
    assert health.broken is None
    assert health.failing_since is None
