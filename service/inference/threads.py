"""A fixed number of threads, each of which can be given up while it is stuck."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue
from typing import Any, Final, TypeVar

FIRST: Final = float("-inf")
LAST: Final = float("inf")

T = TypeVar("T")
Job = tuple[Future[Any], Callable[[], Any]]


class Threads:
    """As a ThreadPoolExecutor, but a thread that never returns keeps neither its place nor the
    process: the threads are daemons, and `abandon` starts another one in its place.

    A thread is started when no other is idle: as long as one suffices, it has a warm cache. Of the
    jobs that wait, the one with the smallest order is next; of equal ones, the first.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: list[tuple[float, int, Job | None]] = []  # a heap
        self._numbers = count()
        self._waiting: SimpleQueue[None] = SimpleQueue()  # an item for each job
        self._running: dict[int, Future[Any]] = {}  # by the identifier of the thread
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_shut_down = False
        self._started = 0
        self._idle = 0

    def submit(self, work: Callable[[], T], order: float = FIRST) -> Future[T]:
        """Raises RuntimeError after `shutdown`."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("the threads have been shut down")
            self._put(order, (future, work))
            if self._idle:
                self._idle -= 1
            elif self._started < self._most:
                self._started += 1
                self._start()
        return future

    def abandon(self, thread: int, error: Exception) -> None:
        """End the job of this thread with an error, though its work may still run."""
        with self._lock:
            future = self._running.pop(thread, None)
            if future is None:  # it has ended in time
                return
            self._start()
        future.set_exception(error)

    def shutdown(self, timeout_s: float | None = None) -> bool:
        """Do what has been submitted; whether all threads have ended within the time."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            if not self._is_shut_down:
                self._is_shut_down = True
                for _ in range(self._started):
                    self._put(LAST, None)
            threads = tuple(self._threads)
        for thread in threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def _put(self, order: float, job: Job | None) -> None:
        heappush(self._jobs, (order, next(self._numbers), job))
        self._waiting.put(None)

    def _next(self) -> Job | None:
        self._waiting.get()
        with self._lock:
            return heappop(self._jobs)[2]

    def _run(self) -> None:
        while (job := self._next()) is not None:
            is_kept = self._work(*job)
            del job  # its image
            if not is_kept:
                return

    def _work(self, future: Future[Any], work: Callable[[], Any]) -> bool:
        """Do one job; False if the thread has been abandoned meanwhile."""
        if not future.set_running_or_notify_cancel():
            with self._lock:
                self._idle += 1
            return True
        me = threading.get_ident()
        with self._lock:
            self._running[me] = future
        try:
            result = work()
        except BaseException as exc:
            is_kept = self._end(me)
            if is_kept:
                future.set_exception(exc)
            # The traceback refers to this frame: a cycle would keep the image for some time.
            del future, work
            return is_kept
        is_kept = self._end(me)
        if is_kept:
            future.set_result(result)
        return is_kept

    def _end(self, thread: int) -> bool:
        """The job of this thread is done; False if the thread has been abandoned.

        The thread is idle before the result is set, so that the next job finds it.
        """
        with self._lock:
            is_kept = self._running.pop(thread, None) is not None
            self._idle += is_kept
        return is_kept
