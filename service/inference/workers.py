"""Threads that work on images, and how their work is cancelled."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from time import perf_counter
from typing import Any, Final, TypeVar

from service.inference.decode_memory import DecodeMemory
from service.inference.semaphore import FairSemaphore, Waiter
from service.inference.timings import Stopwatch
from service.vision.image import EncodedImage

SHORT_S: Final = 0.001  # no wait: there was memory

T = TypeVar("T")


class Workers:
    """`threads` threads, of which `streams` may run an engine at a time, first in, first out.

    Their images share the memory to decode.
    """

    def __init__(self, threads: int, streams: int, memory: DecodeMemory) -> None:
        self._pool = ThreadPoolExecutor(threads, "image")
        self._engines = FairSemaphore(streams)
        self._memory = memory

    async def run(self, work: Callable[[Waiter], T], clock: Stopwatch, slot: ExitStack) -> T:
        """The result of `work` in a thread; the wait for the thread counts as `queue`.

        When cancelled, work that has not begun is dropped. Work that has begun keeps the slot until
        it ends in its thread: at once if it waits for the engine or memory, else when it is done.
        """
        waiter, submitted = Waiter(), perf_counter()

        def timed() -> T:
            clock.add("queue", perf_counter() - submitted)
            return work(waiter)

        job = self._pool.submit(timed)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if not job.cancel():
                self._engines.cancel(waiter)
                self._memory.cancel(waiter)
                _close_when_done(slot.pop_all(), job)
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
        """Do work that no request waits for, unless the threads have been shut down."""
        with suppress(RuntimeError):
            self._pool.submit(work)

    def shutdown(self) -> None:
        """Wait for what has been submitted."""
        self._pool.shutdown()


def _close_when_done(slot: ExitStack, job: Future[Any]) -> None:
    """In the event loop, since the slot belongs to it and the job ends in its thread."""
    loop = asyncio.get_running_loop()

    def close(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and the server with it
            loop.call_soon_threadsafe(slot.close)

    job.add_done_callback(close)
