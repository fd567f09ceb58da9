"""Who may use the engine now."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class HasLeft(Exception):
    """Nobody waits for this work any more; nobody is told either."""


class Guest:
    """One request in the house; it may leave before it is answered."""

    has_left = False


class Turns:
    """At most `places` at a time, first come, first served."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._line: deque[Guest] = deque()
        self._moved = Condition()

    @contextmanager
    def turn(self, guest: Guest) -> Iterator[None]:
        """Wait for a place and keep it inside; raises HasLeft for a guest that has left."""
        with self._moved:
            self._line.append(guest)
            self._moved.wait_for(lambda: guest.has_left or self._is_next(guest))
            self._line.remove(guest)
            self._moved.notify_all()
            if guest.has_left:
                raise HasLeft
            self._free -= 1
        try:
            yield
        finally:
            with self._moved:
                self._free += 1
                self._moved.notify_all()

    def leave(self, guest: Guest) -> None:
        """Give up waiting for a turn; one that is being used goes on to its end."""
        with self._moved:
            guest.has_left = True
            self._moved.notify_all()

    def _is_next(self, guest: Guest) -> bool:
        return self._free > 0 and self._line[0] is guest
