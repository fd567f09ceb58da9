"""Who may use the engine now."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Cancelled(Exception):
    """Nobody waits for this work any more; nobody is told either."""


class Waiter:
    """One request in the house; it may leave before it is answered."""

    def __init__(self) -> None:
        self.has_left = False
        self.has_turn = False
        self.call = Lock()  # released once: when the guest's turn comes, or when it leaves the line
        self.call.acquire()


class FairSemaphore:
    """At most `places` at a time, first come, first served.

    Who is done wakes the next in the line and nobody else: the engine should not idle for it.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._line: deque[Waiter] = deque()
        self._changing = Lock()

    @contextmanager
    def turn(self, guest: Waiter) -> Iterator[None]:
        """Wait for a place and keep it inside; raises HasLeft for a guest that has left."""
        with self._changing:
            if guest.has_left:
                raise Cancelled
            if self._free:
                self._free -= 1
                guest.has_turn = True
            else:
                self._line.append(guest)
        if not guest.has_turn:
            guest.call.acquire()
            if not guest.has_turn:
                raise Cancelled
        try:
            if guest.has_left:
                raise Cancelled
            yield
        finally:
            guest.has_turn = False
            self._pass_on()

    def leave(self, guest: Waiter) -> None:
        """Give up waiting for a turn; one that is being used goes on to its end."""
        with self._changing:
            guest.has_left = True
            if guest in self._line:
                self._line.remove(guest)
                guest.call.release()

    def _pass_on(self) -> None:
        with self._changing:
            if self._line:
                following = self._line.popleft()
                following.has_turn = True
                following.call.release()
            else:
                self._free += 1
