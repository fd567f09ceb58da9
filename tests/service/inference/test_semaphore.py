import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from service.inference.semaphore import Cancelled, FairSemaphore, Waiter
from tests.waiting import WAIT_LIMIT_S, wait_until


class Waiting:
    """A thread that waits for a permit and appends its name to `order` once it has it."""

    def __init__(self, semaphore: FairSemaphore, order: list[str], name: str) -> None:
        self.waiter = Waiter()
        self._semaphore, self._order, self._name = semaphore, order, name
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        wait_until(lambda: self.waiter in semaphore._queue)

    def join(self) -> None:
        self._thread.join(WAIT_LIMIT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with self._semaphore.permit(self.waiter):
                self._order.append(self._name)
        except Cancelled:
            self._order.append(f"{self._name} cancelled")


def assert_free(semaphore: FairSemaphore, permits: int) -> None:
    with ExitStack() as stack:
        for _ in range(permits):
            stack.enter_context(semaphore.permit(Waiter()))


def test_permits_are_given_in_the_order_of_arrival():
    semaphore, order = FairSemaphore(1), []
    with semaphore.permit(Waiter()):
        waiting = [Waiting(semaphore, order, name) for name in "abcdefgh"]
        assert order == []
    for each in waiting:
        each.join()
    assert order == list("abcdefgh")


def test_a_cancelled_waiter_stops_waiting_at_once_and_delays_no_other():
    semaphore, order = FairSemaphore(1), []
    with semaphore.permit(Waiter()):
        first = Waiting(semaphore, order, "first")
        second = Waiting(semaphore, order, "second")
        semaphore.cancel(first.waiter)
        first.join()
        assert order == ["first cancelled"]
    second.join()
    assert order == ["first cancelled", "second"]


def test_a_waiter_cancelled_before_it_waits_gets_no_permit():
    semaphore, waiter = FairSemaphore(1), Waiter()
    semaphore.cancel(waiter)
    with pytest.raises(Cancelled), semaphore.permit(waiter):
        pass
    assert_free(semaphore, 1)


def test_an_error_releases_the_permit():
    semaphore = FairSemaphore(1)
    with pytest.raises(ZeroDivisionError), semaphore.permit(Waiter()):
        raise ZeroDivisionError
    assert_free(semaphore, 1)


def test_a_permit_that_was_taken_back_goes_to_the_next_and_is_not_released_twice():
    semaphore, order, stuck = FairSemaphore(1), [], Waiter()
    with semaphore.permit(stuck):
        first = Waiting(semaphore, order, "first")
        for _ in range(2):
            semaphore.take_back(stuck)
        first.join()
    with semaphore.permit(Waiter()):
        second = Waiting(semaphore, order, "second")
        assert order == ["first"]
    second.join()


def test_a_waiter_may_take_one_permit_after_another():
    semaphore, order, waiter = FairSemaphore(1), [], Waiter()

    def compare() -> None:
        for name in ("a", "b"):
            with semaphore.permit(waiter):
                order.append(name)

    thread = threading.Thread(target=compare)
    with semaphore.permit(Waiter()):
        thread.start()
        other = Waiting(semaphore, order, "other")
    thread.join(WAIT_LIMIT_S)
    other.join()
    assert sorted(order) == ["a", "b", "other"]


def test_no_permit_is_lost_or_given_twice_while_many_are_cancelled():
    semaphore, lock = FairSemaphore(3), threading.Lock()
    inside = most = cancelled = 0

    def run(number: int) -> None:
        nonlocal inside, most, cancelled
        waiter = Waiter()
        if number % 3 == 0:
            threading.Timer(0.001 * (number % 5), semaphore.cancel, [waiter]).start()
        try:
            with semaphore.permit(waiter):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.002)
                with lock:
                    inside -= 1
        except Cancelled:
            with lock:
                cancelled += 1

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(run, range(600)))
    assert most == 3
    assert 0 < cancelled < 600
    assert_free(semaphore, 3)


class Wanting(Waiting):
    """The same for several permits."""

    def __init__(self, semaphore: FairSemaphore, order: list[str], name: str, wanted: int) -> None:
        self._wanted = wanted
        super().__init__(semaphore, order, name)

    def _run(self) -> None:
        try:
            with self._semaphore.permit(self.waiter, self._wanted):
                self._order.append(self._name)
        except Cancelled:
            self._order.append(f"{self._name} cancelled")


def test_who_wants_many_permits_is_not_overtaken_by_those_who_want_few():
    semaphore, order = FairSemaphore(3), []
    with semaphore.permit(Waiter(), 2):
        large = Wanting(semaphore, order, "large", 3)
        small = Wanting(semaphore, order, "small", 1)
        assert order == []
    large.join()
    small.join()
    assert order == ["large", "small"]
    assert_free(semaphore, 3)


def test_a_cancelled_wait_for_many_lets_those_behind_it_go_on():
    semaphore, order = FairSemaphore(3), []
    with semaphore.permit(Waiter(), 2):
        large = Wanting(semaphore, order, "large", 3)
        small = Wanting(semaphore, order, "small", 1)
        semaphore.cancel(large.waiter)
        small.join()
        large.join()
        assert sorted(order) == ["large cancelled", "small"]
    assert_free(semaphore, 3)
