"""How much may be in flight: work that waits, requests in progress, and bytes of their bodies."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from service.errors import Overloaded, PayloadTooLarge
from service.inference.work_queue import Kind, Place, WorkQueue

# Each holds a decoded image, and eight decode faster than any engine here infers.
MAX_DECODE_WORKERS: Final = 8
# Images for each one that the engine infers at a time: one is inferred, one is ready to follow.
READY: Final = 2


def decode_workers(threads: int) -> int:
    """Images to decode at a time; more would take cores that inference needs."""
    return min(MAX_DECODE_WORKERS, max(1, threads // 2))


def default_capacity(streams: int, threads: int) -> int:
    """Requests in progress that keep the engine and the decoders busy."""
    return READY * streams + decode_workers(threads)


@dataclass(slots=True)
class _Turn:
    """A request: who sent it, until when it wants its answer, and the images that it has left."""

    client: str = ""
    deadline: float | None = None
    images: int = 1
    start: float | None = None  # its place in the queue, once it has had one
    body: "Body | None" = None


class Admission:
    """Refuses at once what exceeds its limits. Only the event loop may call its methods.

    A request is admitted while it is expected to wait for at most `max_wait_s`, or for `ready`
    images, and to end before a deadline that it names: see work_queue.py. `capacity` limits the
    requests in progress. None is no limit.

    A request holds bytes of `max_inflight_bytes` from the first byte of its body to its answer,
    and a slot, its place in the queue, only while it is worked on. Slow uploads can lock no one
    out: they hold no slots, and give way when their bytes are needed.
    """

    def __init__(
        self,
        capacity: int | None,
        max_bytes: int,
        max_inflight_bytes: int,
        max_wait_s: float | None = None,
        ready: int = READY,
    ) -> None:
        self.capacity = capacity
        self.max_bytes = max_bytes  # of one body
        self.max_inflight_bytes = max(max_bytes, max_inflight_bytes)
        self.inflight_bytes = 0
        self.on_idle: set[Callable[[], None]] = set()  # called when the last slot is released
        self._queue = WorkQueue(max_wait_s, ready)
        self._arriving: set[Body] = set()

    @property
    def is_idle(self) -> bool:
        """Whether no slot is taken."""
        return self.in_progress == 0

    @property
    def is_full(self) -> bool:
        """Whether every slot of the capacity is taken."""
        return self.capacity is not None and self.in_progress >= self.capacity

    @property
    def in_progress(self) -> int:
        """Slots that are taken."""
        return len(self._queue)

    @property
    def predicted_wait_s(self) -> float:
        """Of a request behind all that are in progress."""
        return self._queue.predict().wait_s

    @contextmanager
    def request(self, client: str = "", deadline: float | None = None) -> Iterator["Body"]:
        """Admit a request for its whole duration, before its body is read.

        `client` shares the queue with other clients; `deadline` in seconds of the loop's clock.
        Raises Overloaded when it would wait too long, every slot is taken, or the bytes in flight
        are used up.
        """
        turn = _Turn(client, deadline)
        self._refuse_late(turn)
        with self.body() as body:
            body.expect(1)
            turn.body = body
            token = TURN.set(turn)
            try:
                yield body
            finally:
                TURN.reset(token)

    def expect_images(self, count: int) -> None:
        """The request will infer so many images, one after the other: it is admitted with all."""
        if (turn := TURN.get()) is not None:
            turn.images = count

    @contextmanager
    def body(self) -> Iterator["Body"]:
        """Count the bytes of a body until the block ends; for requests that need no slot."""
        body = Body(self)
        with body.used():
            yield body

    @contextmanager
    def slot(self, kind: Kind = None) -> Iterator[Place]:
        """Take a slot while an image or a tensor is worked on; raises Overloaded.

        `kind`: what takes about as long. The place's stack releases the slot when the block ends;
        its `pop_all` passes that on to the caller. Until then the body of the request counts, since
        cancelled work may still use it.
        """
        turn = TURN.get() or _Turn()
        if turn.start is None:
            self._refuse_late(turn, kind)
        place = self._queue.enter(turn.client, kind, turn.images, turn.start)
        turn.start = place.start
        with place.stack as stack:
            stack.callback(self._release_slot, place)
            if turn.body is not None:
                stack.enter_context(turn.body.used())
            yield place
            place.is_done = True
            turn.images = max(1, turn.images - 1)

    def _refuse_late(self, turn: _Turn, kind: Kind = None) -> None:
        if self.is_idle:
            return
        wait_s, limit_s = self._queue.predict(turn.client)
        if self.is_full:
            why = f"{self.capacity} requests are in progress"
        elif wait_s > limit_s:
            why = f"the predicted wait is {wait_s:.3f} s, of at most {limit_s:.3f}"
        elif turn.deadline is not None and self._ends_after(turn.deadline, wait_s, kind):
            why = f"the predicted wait is {wait_s:.3f} s, and the deadline is before its end"
        else:
            return
        raise Overloaded(f"{why}; try again shortly", wait_s)

    def _ends_after(self, deadline: float, wait_s: float, kind: Kind) -> bool:
        now = asyncio.get_running_loop().time()
        return now + wait_s + self._queue.service_s(kind) > deadline

    def _release_slot(self, place: Place) -> None:
        self._queue.leave(place)
        if self.is_idle:
            for call in tuple(self.on_idle):
                call()


class Body:
    """The bytes of one request body that are in flight."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = 0
        self._users = 0
        self._timeout: asyncio.Timeout | None = None
        self._began = 0.0
        self._gave_way = False

    def expect(self, size: int) -> None:
        """Raise PayloadTooLarge or Overloaded if a body of `size` bytes cannot be held now."""
        limits = self._admission
        if size > limits.max_bytes:
            raise PayloadTooLarge(f"the request body is larger than {limits.max_bytes} bytes")
        arriving = sum(body._held for body in limits._arriving if body is not self)
        if limits.inflight_bytes - arriving + max(0, size - self._held) > limits.max_inflight_bytes:
            raise self._overloaded()

    def hold(self, size: int, reserved: int = 0) -> None:
        """The body is `size` bytes large now, and work on it takes `reserved` bytes more.

        If there are not enough, the bodies that are still arriving give way, first the one that has
        taken most bytes for most seconds; this one may be it. Raises as `expect`.
        """
        self.expect(size)
        if size and self._gave_way:
            raise self._overloaded()
        limits, more = self._admission, size + reserved - self._held
        while more > 0 and limits.inflight_bytes + more > limits.max_inflight_bytes:
            first = max(limits._arriving, key=Body._taken, default=self)
            if first is self:
                raise self._overloaded()
            first._give_way()
        limits.inflight_bytes += more
        self._held += more

    @asynccontextmanager
    async def arriving(self) -> AsyncIterator[None]:
        """Read the body inside; raises Overloaded when it has to give way to others."""
        timeout = asyncio.timeout(None)
        self._timeout, self._began = timeout, asyncio.get_running_loop().time()
        self._admission._arriving.add(self)
        try:
            async with timeout:
                yield
        except TimeoutError:
            if timeout.expired():
                raise self._overloaded() from None
            raise
        finally:
            self._admission._arriving.discard(self)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Count the bytes until every such block has ended."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self.hold(0)

    def _taken(self) -> float:
        """Byte seconds."""
        return self._held * (asyncio.get_running_loop().time() - self._began)

    def _give_way(self) -> None:
        self._admission._arriving.discard(self)
        self._gave_way = True
        self.hold(0)
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def _overloaded(self) -> Overloaded:
        limits = self._admission
        return Overloaded(
            f"request bodies of {limits.inflight_bytes} bytes are in flight, of at most "
            f"{limits.max_inflight_bytes}; try again shortly"
        )


TURN: Final[ContextVar[_Turn | None]] = ContextVar("TURN", default=None)  # of the current request
