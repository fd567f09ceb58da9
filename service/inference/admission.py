"""How much may be in flight: requests in progress, and bytes of request bodies."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
    and one of `capacity` slots only while it is worked on. A slow upload therefore holds no slot:
    as many slow clients as there are slots would lock out everyone else.
    """

    def __init__(self, capacity: int, max_bytes: int, max_inflight_bytes: int) -> None:
        self.capacity = capacity
        self.max_bytes = max_bytes  # of one body
        self.max_inflight_bytes = max(max_bytes, max_inflight_bytes)
        self.inflight_bytes = 0
        self.on_idle: Callable[[], None] = lambda: None  # called when the last slot is released
        self._slots_taken = 0

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
            yield body

    @contextmanager
    def body(self) -> Iterator["Body"]:
        """Count the bytes of a body until the block ends; for requests that need no slot."""
        body = Body(self)
        try:
            yield body
        finally:
            body.hold(0)

    @contextmanager
    def slot(self) -> Iterator[ExitStack]:
        """Take a slot while an image or a tensor is worked on; raises Overloaded.

        The stack releases the slot when the block ends; `pop_all` passes that on to the caller.
        """
        self._refuse_when_full()
        self._slots_taken += 1
        with ExitStack() as stack:
            stack.callback(self._release_slot)
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

    def expect(self, size: int) -> None:
        """Raise PayloadTooLarge or Overloaded if a body of `size` bytes cannot be held now."""
        limits = self._admission
        if size > limits.max_bytes:
            raise PayloadTooLarge(f"the request body is larger than {limits.max_bytes} bytes")
        if limits.inflight_bytes + max(0, size - self._held) > limits.max_inflight_bytes:
            raise Overloaded(
                f"request bodies of {limits.inflight_bytes} bytes are in flight, of at most "
                f"{limits.max_inflight_bytes}; try again shortly"
            )

    def hold(self, size: int) -> None:
        """The body is `size` bytes large now; raises as `expect`."""
        self.expect(size)
        self._admission.inflight_bytes += size - self._held
        self._held = size
