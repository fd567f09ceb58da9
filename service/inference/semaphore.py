"""Which thread may run the engine next: a fair semaphore whose waiters can be cancelled."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Cancelled(Exception):
    """The request was cancelled, so its worker thread stops."""


class Waiter:
    """One request's place in the queue, used again for each of its engine runs."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self.has_permit = False
        self.wake = Lock()  # released when the wait ends: with a permit, or by `cancel`
        self.wake.acquire()


class FairSemaphore:
    """At most `permits` threads at a time, first in, first out.

    A release wakes one thread and no other, since the engine would idle while they compete.
    """

    def __init__(self, permits: int) -> None:
        self._free = permits
        self._queue: deque[Waiter] = deque()
        self._lock = Lock()

    @contextmanager
    def permit(self, waiter: Waiter) -> Iterator[None]:
        """Wait for a permit and hold it inside; raises Cancelled."""
        with self._lock:
            if waiter.is_cancelled:
                raise Cancelled
            if self._free:
                self._free -= 1
                waiter.has_permit = True
            else:
                self._queue.append(waiter)
        if not waiter.has_permit:
            waiter.wake.acquire()
            if not waiter.has_permit:
                raise Cancelled
        try:
            if waiter.is_cancelled:
                raise Cancelled
            yield
        finally:
            waiter.has_permit = False
            self._release()

    def cancel(self, waiter: Waiter) -> None:
        """End the waiter's wait and refuse it permits; one in use stays until its block ends."""
        with self._lock:
            waiter.is_cancelled = True
            if waiter in self._queue:
                self._queue.remove(waiter)
                waiter.wake.release()

    def _release(self) -> None:
        with self._lock:
            if self._queue:
                first = self._queue.popleft()
                first.has_permit = True
                first.wake.release()
            else:
                self._free += 1
