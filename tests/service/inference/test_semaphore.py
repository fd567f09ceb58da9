import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from service.inference.semaphore import Cancelled, FairSemaphore, Waiter
from tests.fakes import PATIENCE_S


class Noted(Waiter):
    """Tells when it comes to the line, which is when it is asked whether it has left."""

    def __init__(self) -> None:
        self.in_line = threading.Event()
        self._has_left = False
        super().__init__()

    @property
    def has_left(self) -> bool:
        self.in_line.set()
        return self._has_left

    @has_left.setter
    def has_left(self, left: bool) -> None:
        self._has_left = left


class Waiting:
    """A thread that waits for its turn and tells when it had it."""

    def __init__(self, turns: FairSemaphore, order: list, name: str) -> None:
        self.guest = Noted()
        self._turns, self._order, self._name = turns, order, name
        self._thread = threading.Thread(target=self._run)

    def start(self) -> "Waiting":
        self._thread.start()
        assert self.guest.in_line.wait(PATIENCE_S)
        return self

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with self._turns.turn(self.guest):
                self._order.append(self._name)
        except Cancelled:
            self._order.append(f"{self._name} left")


def test_first_come_first_served():
    turns, order = FairSemaphore(1), []
    with turns.turn(Waiter()):
        waiting = [Waiting(turns, order, name).start() for name in "abcdefgh"]
        assert order == []
    for each in waiting:
        each.join()
    assert order == list("abcdefgh")


def test_there_are_as_many_places_as_asked_for():
    turns, order = FairSemaphore(3), []
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(turns.turn(Waiter()))
        Waiting(turns, order, "third").start().join()
        with turns.turn(Waiter()):
            fourth = Waiting(turns, order, "fourth").start()
            assert order == ["third"]
        fourth.join()
    assert order == ["third", "fourth"]


def test_who_leaves_the_line_is_let_go_at_once_and_holds_nobody_up():
    turns, order = FairSemaphore(1), []
    with turns.turn(Waiter()):
        first = Waiting(turns, order, "first").start()
        second = Waiting(turns, order, "second").start()
        turns.leave(first.guest)
        first.join()
        assert order == ["first left"]
    second.join()
    assert order == ["first left", "second"]


def test_who_has_left_before_the_line_gets_no_turn():
    turns, guest = FairSemaphore(1), Waiter()
    turns.leave(guest)
    with pytest.raises(Cancelled), turns.turn(guest):
        pass
    with turns.turn(Waiter()):
        pass


def test_a_failure_inside_gives_the_place_back():
    turns = FairSemaphore(1)
    with pytest.raises(ZeroDivisionError), turns.turn(Waiter()):
        raise ZeroDivisionError
    with turns.turn(Waiter()):
        pass


def test_a_guest_may_take_one_turn_after_another():
    turns, order = FairSemaphore(1), []
    twice = Waiter()

    def compare() -> None:
        for name in ("a", "b"):
            with turns.turn(twice):
                order.append(name)

    thread = threading.Thread(target=compare)
    with turns.turn(Waiter()):
        thread.start()
        other = Waiting(turns, order, "other").start()
    thread.join(PATIENCE_S)
    other.join()
    assert sorted(order) == ["a", "b", "other"]


def test_no_place_is_lost_or_given_twice_in_a_crowd_that_comes_and_goes():
    turns, inside, most, lock = FairSemaphore(3), 0, 0, threading.Lock()
    left = 0

    def visit(number: int) -> None:
        nonlocal inside, most, left
        guest = Waiter()
        leaver = threading.Timer(0.001 * (number % 5), turns.leave, [guest])
        if number % 3 == 0:
            leaver.start()
        try:
            with turns.turn(guest):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.002)
                with lock:
                    inside -= 1
        except Cancelled:
            with lock:
                left += 1

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(visit, range(600)))
    assert most == 3
    assert 0 < left < 600
    with ExitStack() as stack:  # every place is free again
        for _ in range(3):
            stack.enter_context(turns.turn(Waiter()))
