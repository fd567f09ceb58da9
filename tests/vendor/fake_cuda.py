"""CUDA's runtime in this machine's memory, behind the functions that `cuda_device` calls.

Queued work runs only when its stream is waited for, so a result that is read too early is wrong.
A call that CUDA would refuse is a mistake, and so is what nobody frees: `require_clean` tells.
"""

import ctypes
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from cuda.bindings import runtime as real

Place = Literal["device", "host"]
Operation = Callable[[], None]

SUCCESS = real.cudaError_t.cudaSuccess
FRESH, FREED = 0xCD, 0xDD  # the bytes of memory that was never written, and of freed memory
DIRECTIONS: dict[Any, tuple[Place, Place]] = {
    real.cudaMemcpyKind.cudaMemcpyHostToDevice: ("host", "device"),
    real.cudaMemcpyKind.cudaMemcpyDeviceToHost: ("device", "host"),
}


class Mistake(Exception):
    """A call that CUDA would refuse."""


@dataclass(slots=True)
class Queue:
    """A stream: its waiting work, and what is recorded while it is captured."""

    waiting: list[Operation] = field(default_factory=list)
    recorded: list[Operation] | None = None


class FakeCuda:
    """Stands for the module; what is not here, such as enums, is that of the real one."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.mistakes: list[str] = []
        self._failing: dict[str, list[Any]] = {}
        self._handles = itertools.count(0x1000, 0x10)
        self._memory: dict[int, tuple[Place, Any]] = {}
        self._freed: list[Any] = []  # kept, so that reading it does no harm
        self._queues: dict[int, Queue] = {}
        self._graphs: dict[int, list[Operation]] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(type(self), f"_{name}", None)
        if method is None:
            return getattr(real, name)

        def call(*args: Any) -> tuple[Any, ...]:
            self.calls[name] += 1
            pending = self._failing.get(name, [])
            error = pending.pop(0) if pending else SUCCESS
            try:
                made = method(self, *args) if error == SUCCESS else None
            except Mistake as exc:
                self.mistakes.append(f"{name}: {exc}")
                error, made = real.cudaError_t.cudaErrorInvalidValue, None
            return (error,) if made is None and error == SUCCESS else (error, made)

        return call

    def fail(self, name: str, error: str, after: int = 0) -> None:
        """Let one call return an error, once `after` calls have succeeded."""
        self._failing[name] = [SUCCESS] * after + [getattr(real.cudaError_t, error)]

    def require_clean(self) -> None:
        """Fail where a call was a mistake or something was not freed."""
        left = [place for place, _ in self._memory.values()], self._queues, self._graphs
        assert not self.mistakes, self.mistakes
        assert not any(left), left

    def enqueue(self, stream: int, *operations: Operation) -> None:
        """Queue work, or record it while the stream is captured."""
        queue = self._queue(stream)
        (queue.waiting if queue.recorded is None else queue.recorded).extend(operations)

    def memory(self, address: int, count: int, place: Place) -> int:
        """The address, if so many bytes are allocated there; raises Mistake."""
        for start, (where, block) in self._memory.items():
            if start <= address and address + count <= start + len(block) and where == place:
                return address
        raise Mistake(f"{count} bytes at {address:#x} are not allocated on the {place}")

    def _allocate(self, place: Place, size: int) -> int:
        if any(queue.recorded is not None for queue in self._queues.values()):
            raise Mistake("memory is allocated in a capture")
        block = (ctypes.c_ubyte * size)()
        ctypes.memset(block, FRESH, size)
        self._memory[ctypes.addressof(block)] = (place, block)
        return ctypes.addressof(block)

    def _free(self, place: Place, address: int) -> None:
        where, block = self._memory.get(address, (None, None))
        if where != place:
            raise Mistake(f"no live {place} memory is at {address:#x}")
        for stream in self._queues:  # as CUDA does, which frees nothing that is in use
            self._cudaStreamSynchronize(stream)
        ctypes.memset(block, FREED, len(block))
        self._freed.append(self._memory.pop(address))

    def _queue(self, stream: int) -> Queue:
        if stream not in self._queues:
            raise Mistake(f"there is no stream {stream:#x}")
        return self._queues[stream]

    def _cudaMalloc(self, size: int) -> int:
        return self._allocate("device", size)

    def _cudaMallocHost(self, size: int) -> int:
        return self._allocate("host", size)

    def _cudaFree(self, address: int) -> None:
        self._free("device", address)

    def _cudaFreeHost(self, address: int) -> None:
        self._free("host", address)

    def _cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: int) -> None:
        source, target = DIRECTIONS[kind]

        def copy() -> None:
            self.memory(src, count, source)
            ctypes.memmove(self.memory(dst, count, target), src, count)

        self.memory(src, count, source), self.memory(dst, count, target)
        self.enqueue(stream, copy)

    def _cudaStreamCreate(self) -> int:
        self._queues[handle := next(self._handles)] = Queue()
        return handle

    def _cudaStreamSynchronize(self, stream: int) -> None:
        queue = self._queue(stream)
        if queue.recorded is not None:
            raise Mistake("a captured stream is waited for")
        while queue.waiting:
            queue.waiting.pop(0)()

    def _cudaStreamDestroy(self, stream: int) -> None:
        self._cudaStreamSynchronize(stream)
        del self._queues[stream]

    def _cudaStreamBeginCapture(self, stream: int, mode: Any) -> None:
        self._queue(stream).recorded = []

    def _cudaStreamEndCapture(self, stream: int) -> int:
        recorded, self._queue(stream).recorded = self._queue(stream).recorded, None
        assert recorded is not None
        self._graphs[handle := next(self._handles)] = recorded
        return handle

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> int:
        self._graphs[handle := next(self._handles)] = list(self._graphs[graph])
        return handle

    def _cudaGraphDestroy(self, graph: int) -> None:
        del self._graphs[graph]

    def _cudaGraphLaunch(self, executable: int, stream: int) -> None:
        self.enqueue(stream, *self._graphs[executable])

    def _cudaGraphExecDestroy(self, executable: int) -> None:
        del self._graphs[executable]
