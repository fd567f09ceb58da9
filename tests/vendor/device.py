"""A simulated GPU: memory, streams and graphs behind the functions of CUDA's runtime.

Queued work runs only when its stream is waited for, so a result that is read too early is wrong.
"""

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cuda.bindings import runtime as real

Place = Literal["device", "host"]
Operation = Callable[[], None]  # may raise Refused
Values = tuple[Any, ...]

FRESH, FREED = 0xCD, 0xDD  # the bytes of memory that was never written, and of freed memory
DIRECTIONS: Final[dict[real.cudaMemcpyKind, tuple[Place, Place]]] = {
    real.cudaMemcpyKind.cudaMemcpyHostToDevice: ("host", "device"),
    real.cudaMemcpyKind.cudaMemcpyDeviceToHost: ("device", "host"),
}


class Refused(Exception):
    """The device refuses a call, with the name of CUDA's error; only a mistake explains it."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error


@dataclass(slots=True)
class Allocation:
    """Real memory of this machine. It stays when it is freed, so that reading it does no harm."""

    place: Place
    bytes: int
    memory: ctypes.Array[ctypes.c_ubyte]
    freed: bool = False

    @property
    def address(self) -> int:
        return ctypes.addressof(self.memory)

    def contains(self, address: int, count: int) -> bool:
        return self.address <= address and address + count <= self.address + self.bytes


@dataclass(slots=True)
class Queue:
    """A stream: its waiting work, and what is recorded while it is captured."""

    waiting: list[Operation] = field(default_factory=list)
    recorded: list[Operation] | None = None


class Device:
    """Methods named cuda... return the values that follow the error, and raise Refused."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []
        self._allocations: list[Allocation] = []
        self._queues: dict[int, Queue] = {}
        self._graphs: dict[int, list[Operation]] = {}
        self._executables: dict[int, list[Operation]] = {}
        self._handles = itertools.count(0x1000, 0x10)

    def require_clean(self) -> None:
        """Fail where a call was a mistake or something was not freed."""
        assert not self.mistakes, self.mistakes
        memory = [f"{each.bytes} bytes of {each.place}" for each in self._live()]
        handles = {"stream": self._queues, "graph": self._graphs, "executable": self._executables}
        left = memory + [f"{kind} {each:#x}" for kind, all_ in handles.items() for each in all_]
        assert not left, left

    def cudaMalloc(self, size: int) -> Values:
        return self._allocate("device", size)

    def cudaMallocHost(self, size: int) -> Values:
        return self._allocate("host", size)

    def cudaFree(self, devPtr: int) -> Values:
        return self._free("device", devPtr)

    def cudaFreeHost(self, ptr: int) -> Values:
        return self._free("host", ptr)

    def cudaMemcpyAsync(
        self, dst: int, src: int, count: int, kind: real.cudaMemcpyKind, stream: Any
    ) -> Values:
        """Both ends are checked when the copy is queued, and again when it runs."""

        def copy() -> None:
            self._check_copy(dst, src, count, kind)
            ctypes.memmove(dst, src, count)

        self._check_copy(dst, src, count, kind)
        self.enqueue(stream, copy)
        return ()

    def cudaStreamCreate(self) -> Values:
        handle = next(self._handles)
        self._queues[handle] = Queue()
        return (real.cudaStream_t(handle),)

    def cudaStreamSynchronize(self, stream: Any) -> Values:
        queue = self._queue(stream)
        if queue.recorded is not None:
            raise Refused("cudaErrorStreamCaptureUnsupported", "a captured stream is waited for")
        while queue.waiting:
            queue.waiting.pop(0)()
        return ()

    def cudaStreamDestroy(self, stream: Any) -> Values:
        self.cudaStreamSynchronize(stream)
        del self._queues[int(stream)]
        return ()

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> Values:
        if self.captured(stream):
            raise Refused("cudaErrorIllegalState", "the stream is captured already")
        self._queue(stream).recorded = []
        return ()

    def cudaStreamEndCapture(self, stream: Any) -> Values:
        recorded = self.end_capture(stream)
        if recorded is None:
            raise Refused("cudaErrorIllegalState", "the stream is not captured")
        handle = next(self._handles)
        self._graphs[handle] = recorded
        return (real.cudaGraph_t(handle),)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Values:
        handle = next(self._handles)
        self._executables[handle] = list(_of(self._graphs, graph))
        return (real.cudaGraphExec_t(handle),)

    def cudaGraphDestroy(self, graph: Any) -> Values:
        _of(self._graphs, graph)
        del self._graphs[int(graph)]
        return ()

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> Values:
        self.enqueue(stream, *_of(self._executables, graphExec))
        return ()

    def cudaGraphExecDestroy(self, graphExec: Any) -> Values:
        _of(self._executables, graphExec)
        del self._executables[int(graphExec)]
        return ()

    def cudaGetErrorString(self, error: real.cudaError_t) -> Values:
        return real.cudaGetErrorString(error)[1:]

    def enqueue(self, stream: Any, *operations: Operation) -> None:
        """Queue work, or record it while the stream is captured."""
        queue = self._queue(stream)
        (queue.waiting if queue.recorded is None else queue.recorded).extend(operations)

    def captured(self, stream: Any) -> bool:
        """Whether the stream's work is recorded instead of run."""
        return self._queue(stream).recorded is not None

    def end_capture(self, stream: Any) -> list[Operation] | None:
        """What was recorded; None where the stream was not captured."""
        queue = self._queue(stream)
        recorded, queue.recorded = queue.recorded, None
        return recorded

    def read(self, address: int, count: int) -> bytes:
        """Device memory, for kernels."""
        self._require_on_device(address, count)
        return ctypes.string_at(address, count)

    def write(self, address: int, content: bytes) -> None:
        """Device memory, for kernels."""
        self._require_on_device(address, len(content))
        ctypes.memmove(address, content, len(content))

    def _require_on_device(self, address: int, count: int) -> None:
        if self._place_of(address, count) != "device":
            raise Refused("cudaErrorIllegalAddress", f"a kernel uses host memory at {address:#x}")

    def _check_copy(self, dst: int, src: int, count: int, kind: real.cudaMemcpyKind) -> None:
        found = self._place_of(src, count), self._place_of(dst, count)
        if found != DIRECTIONS[kind]:
            raise Refused("cudaErrorInvalidValue", f"{kind.name} from {found[0]} to {found[1]}")

    def _live(self) -> list[Allocation]:
        return [each for each in self._allocations if not each.freed]

    def _allocate(self, place: Place, size: int) -> Values:
        self._require_no_capture("allocated")
        memory = (ctypes.c_ubyte * size)()
        ctypes.memset(memory, FRESH, size)
        self._allocations.append(Allocation(place, size, memory))
        return (self._allocations[-1].address,)

    def _free(self, place: Place, address: int) -> Values:
        self._require_no_capture("freed")
        for stream in self._queues:  # as CUDA does, which frees nothing that is in use
            self.cudaStreamSynchronize(stream)
        found = [each for each in self._live() if each.address == address and each.place == place]
        if not found:
            raise Refused("cudaErrorInvalidValue", f"no live {place} memory is at {address:#x}")
        found[0].freed = True
        ctypes.memset(found[0].memory, FREED, found[0].bytes)
        return ()

    def _require_no_capture(self, what: str) -> None:
        if any(queue.recorded is not None for queue in self._queues.values()):
            raise Refused("cudaErrorStreamCaptureUnsupported", f"memory is {what} in a capture")

    def _place_of(self, address: int, count: int) -> Place:
        for each in self._live():
            if each.contains(address, count):
                return each.place
        raise Refused("cudaErrorInvalidValue", f"{count} bytes at {address:#x} are not allocated")

    def _queue(self, stream: Any) -> Queue:
        if int(stream) not in self._queues:
            raise Refused("cudaErrorInvalidResourceHandle", f"no stream {int(stream):#x}")
        return self._queues[int(stream)]


def _of(things: dict[int, list[Operation]], handle: Any) -> list[Operation]:
    if int(handle) not in things:
        raise Refused("cudaErrorInvalidValue", f"no graph {int(handle):#x}")
    return things[int(handle)]
