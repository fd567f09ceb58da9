"""Threads that work on images, and how their work is cancelled."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock
from time import monotonic, perf_counter
from typing import Any, Final, TypeVar

from service.inference.decode_memory import DecodeMemory
from service.inference.semaphore import FairSemaphore, Waiter
from service.inference.threads import Threads
from service.inference.timings import Stopwatch
from service.inference.work_queue import Place
from service.vision.image import EncodedImage

SHORT_S: Final = 0.001  # no wait: there was memory

T = TypeVar("T")

log = logging.getLogger(__name__)


class Workers:
    """`threads` threads, of which `streams` may run an engine at a time, first in, first out.

    Requests get a thread in the order of their places. Their images share the memory to decode.
    Several pipelines may share the threads, which end when the last of them leaves.
    """

    def __init__(self, threads: int, streams: int, memory: DecodeMemory) -> None:
        self.streams = streams
        self._pipelines = 0
        self._pipelines_lock = Lock()
        self._threads = Threads(threads, "image")
        self._engines = FairSemaphore(streams)
        self._memory = memory

    async def run(self, work: Callable[[Waiter], T], clock: Stopwatch, place: Place) -> T:
        """The result of `work` in a thread; the wait for the thread counts as `queue`.

        When cancelled, work that has not begun is dropped. Work that has begun keeps the
        place until it ends in its thread: at once if it waits for the engine or memory, else
        when it is done.
        """
        waiter, submitted = Waiter(), perf_counter()
        place.has_begun = False

        def timed() -> T:
            place.has_begun = True
            clock.add("queue", perf_counter() - submitted)
            try:
                return work(waiter)
            except Exception:
                raise
            except BaseException as exc:  # a panic in Rust; no error handler would answer it
                raise RuntimeError(f"the work ended with {type(exc).__name__}") from exc
            finally:
                place.ended = monotonic()

        job = self._threads.submit(timed, place.start)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if not job.cancel():
                self._engines.cancel(waiter)
                self._memory.cancel(waiter)
                _close_when_done(place.stack.pop_all(), job)
            raise

    @contextmanager
    def engine(self, waiter: Waiter, clock: Stopwatch) -> Iterator[None]:
        """Wait to run an engine (`queue`), then run it inside (`infer`); raises Cancelled."""
        with ExitStack() as stack:
            with clock.stage("queue"):
                stack.enter_context(self._engines.permit(waiter))
            stack.enter_context(clock.stage("infer"))
            yield

    @contextmanager
    def memory(
        self, image: EncodedImage, drawn: bool, waiter: Waiter, clock: Stopwatch
    ) -> Iterator[None]:
        """Wait for the memory of an image (`queue`); raises Cancelled or ImageTooLarge."""
        with ExitStack() as stack:
            began = perf_counter()
            stack.enter_context(self._memory.reserve(image, waiter, drawn))
            waited_s = perf_counter() - began
            if waited_s > SHORT_S:
                clock.add("queue", waited_s)
            yield

    def submit(self, work: Callable[[], object]) -> None:
        """Do work that no request waits for, unless the threads have been shut down.

        Its errors are logged.
        """
        with suppress(RuntimeError):
            self._threads.submit(work).add_done_callback(_log_error)

    def free(self, waiter: Waiter) -> None:
        """Give others the engine and the memory of one that is still inside `engine`."""
        self._engines.take_back(waiter)
        self._memory.take_back(waiter)

    def abandon(self, thread: int, error: Exception) -> None:
        """Work on without this thread; its job ends with the error."""
        self._threads.abandon(thread, error)

    def join(self) -> None:
        """One pipeline more uses the threads."""
        with self._pipelines_lock:
            self._pipelines += 1

    def leave(self, timeout_s: float | None = None) -> bool:
        """One less; the last one waits for what has been submitted.

        False if that has not ended within the time.
        """
        with self._pipelines_lock:
            self._pipelines -= 1
            is_last = self._pipelines == 0
        return not is_last or self._threads.shutdown(timeout_s)


def _log_error(job: Future[Any]) -> None:
    if (error := job.exception()) is not None:
        log.error("work in the background failed", exc_info=error)


def _close_when_done(slot: ExitStack, job: Future[Any]) -> None:
    """In the event loop, since the slot belongs to it and the job ends in its thread."""
    loop = asyncio.get_running_loop()

    def close(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and the server with it
            loop.call_soon_threadsafe(slot.close)

    job.add_done_callback(close)
