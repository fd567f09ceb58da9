"""How much may be in flight: requests in progress, and bytes of request bodies."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Final

from service.errors import Overloaded, PayloadTooLarge

# Each holds a decoded image, and eight decode faster than any engine here infers.
MAX_DECODE_WORKERS: Final = 8


def decode_workers(threads: int) -> int:
    """Images to decode at a time; more would take cores that inference needs."""
    return min(MAX_DECODE_WORKERS, max(1, threads // 2))


def default_capacity(streams: int, threads: int) -> int:
    """Requests in progress at a time: two for each image in the engine, one for each decoder.

    One of the two is inferred while the other is ready to follow. More requests would only wait
    longer: see bench/saturation.py.
    """
    return 2 * streams + decode_workers(threads)


class Admission:
    """Refuses at once what exceeds its limits. Only the event loop may call its methods.

    A request holds bytes of `max_inflight_bytes` from the first byte of its body to its answer,
    and one of `capacity` slots only while it is worked on. Slow uploads can lock no one out: they
    hold no slots, and give way when their bytes are needed.
    """

    def __init__(self, capacity: int, max_bytes: int, max_inflight_bytes: int) -> None:
        self.capacity = capacity
        self.max_bytes = max_bytes  # of one body
        self.max_inflight_bytes = max(max_bytes, max_inflight_bytes)
        self.inflight_bytes = 0
        self.on_idle: Callable[[], None] = lambda: None  # called when the last slot is released
        self._slots_taken = 0
        self._arriving: set[Body] = set()

    @property
    def is_idle(self) -> bool:
        """Whether no slot is taken."""
        return self._slots_taken == 0

    @property
    def is_full(self) -> bool:
        """Whether every slot is taken."""
        return self._slots_taken >= self.capacity

    @contextmanager
    def request(self) -> Iterator["Body"]:
        """Admit a request for its whole duration, before its body is read.

        Raises Overloaded when every slot is taken or the bytes in flight are used up.
        """
        self._refuse_when_full()
        with self.body() as body:
            body.expect(1)
            token = BODY.set(body)
            try:
                yield body
            finally:
                BODY.reset(token)

    @contextmanager
    def body(self) -> Iterator["Body"]:
        """Count the bytes of a body until the block ends; for requests that need no slot."""
        body = Body(self)
        with body.used():
            yield body

    @contextmanager
    def slot(self) -> Iterator[ExitStack]:
        """Take a slot while an image or a tensor is worked on; raises Overloaded.

        The stack releases the slot when the block ends; `pop_all` passes that on to the caller.
        Until then the body of the request counts, since cancelled work may still use it.
        """
        self._refuse_when_full()
        self._slots_taken += 1
        with ExitStack() as stack:
            stack.callback(self._release_slot)
            if (body := BODY.get()) is not None:
                stack.enter_context(body.used())
            yield stack

    def _refuse_when_full(self) -> None:
        if self.is_full:
            raise Overloaded(f"{self.capacity} requests are in progress; try again shortly")

    def _release_slot(self) -> None:
        self._slots_taken -= 1
        if self.is_idle:
            self.on_idle()


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


BODY: Final[ContextVar[Body | None]] = ContextVar("BODY", default=None)  # of the current request
