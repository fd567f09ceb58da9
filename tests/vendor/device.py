"""A GPU that there is none of: memory, streams and graphs, and what went wrong with them.

Nothing queued runs before it is waited for, so that a result read too early is not there yet.
"""

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

Place = Literal["device", "host"]

DEFAULT_STREAM: Final = 0
TOTAL_BYTES: Final = 8 << 30
FRESH, FREED = 0xCD, 0xDD  # what memory holds that was never written, and that is freed


class Refused(Exception):
    """A call that the device refuses, with the name of CUDA's error for it."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error


class Mistake(Refused):
    """One that no caller who knows what it does would make."""


@dataclass(slots=True)
class Allocation:
    """Real memory on this machine, kept when it is freed: to read it later then does no harm."""

    place: Place
    bytes: int
    memory: ctypes.Array[ctypes.c_ubyte]
    freed: bool = False

    @property
    def address(self) -> int:
        """Of its first byte."""
        return ctypes.addressof(self.memory)

    def holds(self, address: int, count: int) -> bool:
        """Whether so many bytes lie within."""
        return self.address <= address and address + count <= self.address + self.bytes


class Memory:
    """What is allocated where."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._allocations: list[Allocation] = []

    @property
    def live(self) -> list[Allocation]:
        """What is not freed."""
        return [each for each in self._allocations if not each.freed]

    @property
    def free_bytes(self) -> int:
        """Of the device."""
        return self.total - sum(each.bytes for each in self.live if each.place == "device")

    def allocate(self, place: Place, count: int) -> int:
        """The address of so many bytes, which hold nothing sensible."""
        if place == "device" and count > self.free_bytes:
            raise Refused("cudaErrorMemoryAllocation", f"{count} bytes are not free")
        memory = (ctypes.c_ubyte * count)()
        ctypes.memset(memory, FRESH, count)
        self._allocations.append(Allocation(place, count, memory))
        return self._allocations[-1].address

    def release(self, place: Place, address: int) -> None:
        """What was allocated there."""
        if address == 0:
            return
        found = [each for each in self._allocations if each.address == address]
        if not found or found[-1].place != place:
            raise Mistake("cudaErrorInvalidValue", f"no {place} memory begins at {address:#x}")
        if found[-1].freed:
            raise Mistake("cudaErrorInvalidValue", f"{place} memory is freed twice")
        found[-1].freed = True
        ctypes.memset(found[-1].memory, FREED, found[-1].bytes)

    def place_of(self, address: int, count: int) -> Place:
        """Where these bytes are; they must lie within one allocation."""
        for each in self._allocations:
            if each.holds(address, count):
                if each.freed:
                    raise Mistake("cudaErrorInvalidValue", f"{each.place} memory was freed")
                return each.place
        reason = f"{count} bytes at {address:#x} are not all allocated"
        raise Mistake("cudaErrorInvalidValue", reason)


@dataclass(frozen=True, slots=True)
class Operation:
    """Work in a stream; `run` may raise Refused."""

    name: str
    run: Callable[[], None]


@dataclass(slots=True)
class Queue:
    """A stream: what it has yet to do, and what is recorded of it while it is captured."""

    waiting: list[Operation] = field(default_factory=list)
    recorded: list[Operation] | None = None
    strict: bool = False  # whether the capture forbids calls that allocate
    broken: bool = False  # the capture, by a call that it forbids


class Device:
    """The state behind a fake CUDA, for tests to look at."""

    def __init__(self, total: int = TOTAL_BYTES) -> None:
        self.memory = Memory(total)
        self.queues: dict[int, Queue] = {DEFAULT_STREAM: Queue()}
        self.graphs: dict[int, list[Operation]] = {}
        self.executables: dict[int, list[Operation]] = {}
        self.done: list[str] = []  # the names of the operations that ran
        self.faults: list[str] = []  # calls that only a mistake explains
        self._handles = itertools.count(0x1000, 0x10)

    @property
    def leaks(self) -> list[str]:
        """What was made and is still there."""
        memory = [f"{each.bytes} bytes of {each.place} memory" for each in self.memory.live]
        streams = [f"stream {each:#x}" for each in self.queues if each != DEFAULT_STREAM]
        graphs = [f"graph {each:#x}" for each in self.graphs]
        return [*memory, *streams, *graphs, *(f"graph exec {each:#x}" for each in self.executables)]

    def require_clean(self) -> None:
        """Fail where a call was wrong or something is left behind."""
        assert not self.faults, self.faults
        assert not self.leaks, self.leaks

    def handle(self) -> int:
        """A number for a new thing."""
        return next(self._handles)

    def queue(self, stream: int) -> Queue:
        """The stream of that handle."""
        if stream not in self.queues:
            raise Mistake("cudaErrorInvalidResourceHandle", f"there is no stream {stream:#x}")
        return self.queues[stream]

    def open_stream(self) -> int:
        """A new one."""
        handle = self.handle()
        self.queues[handle] = Queue()
        return handle

    def close_stream(self, stream: int) -> None:
        """Once its work is done."""
        self.wait(stream)
        if stream == DEFAULT_STREAM:
            raise Mistake("cudaErrorInvalidResourceHandle", "the default stream is destroyed")
        del self.queues[stream]

    def enqueue(self, stream: int, *operations: Operation) -> None:
        """Into the recording while the stream is captured."""
        queue = self.queue(stream)
        into = queue.waiting if queue.recorded is None else queue.recorded
        into.extend(operations)

    def begin_capture(self, stream: int, strict: bool) -> None:
        """Record what is queued from now on; a strict one lets nobody allocate meanwhile."""
        queue = self.queue(stream)
        if stream == DEFAULT_STREAM:
            raise Mistake("cudaErrorStreamCaptureUnsupported", "the default stream is captured")
        if queue.recorded is not None:
            raise Mistake("cudaErrorIllegalState", "the stream is captured already")
        queue.recorded, queue.strict, queue.broken = [], strict, False

    def captured(self, stream: int) -> bool:
        """Whether its work is recorded instead of done."""
        return self.queue(stream).recorded is not None

    def end_capture(self, stream: int) -> list[Operation]:
        """What was recorded."""
        queue = self.queue(stream)
        if queue.recorded is None:
            raise Mistake("cudaErrorIllegalState", "the stream is not captured")
        recorded, queue.recorded = queue.recorded, None
        if queue.broken:
            raise Refused("cudaErrorStreamCaptureInvalidated", "a call broke the capture")
        return recorded

    def wait(self, stream: int) -> None:
        """Do what is queued; that one cannot while the stream is captured."""
        queue = self.queue(stream)
        if queue.recorded is not None:
            queue.broken = True
            raise Mistake("cudaErrorStreamCaptureUnsupported", "a captured stream is waited for")
        while queue.waiting:
            operation = queue.waiting.pop(0)
            operation.run()
            self.done.append(operation.name)

    def settle(self, what: str) -> None:
        """Before something is allocated or freed, which no strict capture allows."""
        for queue in self.queues.values():
            if queue.recorded is not None and queue.strict:
                queue.broken = True
                raise Mistake("cudaErrorStreamCaptureUnsupported", f"{what} during a capture")

    def wait_all(self) -> None:
        """Do what is queued in every stream that is not captured."""
        for stream, queue in self.queues.items():
            if queue.recorded is None:
                self.wait(stream)

    def read(self, address: int, count: int) -> bytes:
        """Device memory, for kernels."""
        self._require_on_device(address, count)
        return ctypes.string_at(address, count)

    def write(self, address: int, content: bytes) -> None:
        """Device memory, for kernels."""
        self._require_on_device(address, len(content))
        ctypes.memmove(address, content, len(content))

    def _require_on_device(self, address: int, count: int) -> None:
        if self.memory.place_of(address, count) != "device":
            raise Mistake("cudaErrorIllegalAddress", f"a kernel uses host memory at {address:#x}")
