"""Which thread may go on: a fair semaphore whose waiters can be cancelled."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Cancelled(Exception):
    """The request was cancelled, so its worker thread stops."""


class Waiter:
    """One request's place in a queue, used again for each of its waits."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self.wanted = 0  # permits
        self.has_permits = False  # `wake` was released because they were given
        self.wake = Lock()  # released when the wait ends: with a permit, or by `cancel`
        self.wake.acquire()


class FairSemaphore:
    """At most `permits` at a time, first in, first out; a thread may need several.

    A release wakes only the threads that can go on, since what they wait for would idle while all
    compete.
    """

    def __init__(self, permits: int) -> None:
        self._free = permits
        self._queue: deque[Waiter] = deque()
        self._held: dict[Waiter, int] = {}  # permits
        self._lock = Lock()

    @contextmanager
    def permit(self, waiter: Waiter, wanted: int = 1) -> Iterator[None]:
        """Wait for as many permits as are wanted and hold them inside; raises Cancelled."""
        with self._lock:
            if waiter.is_cancelled:
                raise Cancelled
            waits = bool(self._queue) or wanted > self._free
            if waits:
                waiter.wanted, waiter.has_permits = wanted, False
                self._queue.append(waiter)
            else:
                self._free -= wanted
                self._held[waiter] = wanted
        if waits:
            waiter.wake.acquire()
            if not waiter.has_permits:
                raise Cancelled
        try:
            if waiter.is_cancelled:
                raise Cancelled
            yield
        finally:
            self.take_back(waiter)

    def take_back(self, waiter: Waiter) -> None:
        """Give what the waiter holds, if anything, to the next ones, though its block may go on."""
        with self._lock:
            self._free += self._held.pop(waiter, 0)
            self._wake()

    def cancel(self, waiter: Waiter) -> None:
        """End the waiter's wait and refuse it permits; one in use stays until its block ends."""
        with self._lock:
            waiter.is_cancelled = True
            if waiter in self._queue:
                self._queue.remove(waiter)
                waiter.wake.release()
                self._wake()  # the next one may want less

    def _wake(self) -> None:
        """Give free permits to the first in the queue."""
        while self._queue and self._queue[0].wanted <= self._free:
            first = self._queue.popleft()
            self._free -= first.wanted
            self._held[first] = first.wanted
            first.has_permits = True
            first.wake.release()
