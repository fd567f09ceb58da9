"""What the functions of CUDA's runtime do to a simulated device, each by its own name.

They return the values that follow the error, and raise Refused for an error.
"""

import ctypes
from typing import Any, Final

from cuda.bindings import runtime as real

from tests.vendor.device import DEFAULT_STREAM, Device, Mistake, Operation, Place

Values = tuple[Any, ...]
Kind = real.cudaMemcpyKind

DIRECTIONS: Final[dict[Kind, tuple[Place, Place]]] = {
    Kind.cudaMemcpyHostToHost: ("host", "host"),
    Kind.cudaMemcpyHostToDevice: ("host", "device"),
    Kind.cudaMemcpyDeviceToHost: ("device", "host"),
    Kind.cudaMemcpyDeviceToDevice: ("device", "device"),
}


def number(value: Any) -> int:
    """Of an address or a handle, as a number or an object around one; None is 0."""
    if value is None:
        return 0
    if isinstance(value, float) or not hasattr(value, "__int__"):
        raise TypeError(f"an address or a handle is required, not {value!r}")
    return int(value)


class Devices:
    """There is one."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def cudaGetDeviceCount(self) -> Values:
        return (1,)

    def cudaGetDevice(self) -> Values:
        return (0,)

    def cudaSetDevice(self, device: int) -> Values:
        if device != 0:
            raise Mistake("cudaErrorInvalidDevice", f"there is no device {device}")
        return ()

    def cudaDeviceSynchronize(self) -> Values:
        self._device.settle("cudaDeviceSynchronize")
        self._device.wait_all()
        return ()


class Allocations(Devices):
    """Memory of either side; to free any waits for all work, as CUDA does."""

    def cudaMalloc(self, size: int) -> Values:
        return self._allocate("device", size)

    def cudaMallocHost(self, size: int) -> Values:
        return self._allocate("host", size)

    def cudaHostAlloc(self, size: int, flags: int) -> Values:
        return self._allocate("host", size)

    def cudaFree(self, address: Any) -> Values:
        return self._free("device", address)

    def cudaFreeHost(self, address: Any) -> Values:
        return self._free("host", address)

    def cudaMemGetInfo(self) -> Values:
        return self._device.memory.free_bytes, self._device.memory.total

    def _allocate(self, place: Place, size: int) -> Values:
        self._device.settle("memory is allocated")
        return (self._device.memory.allocate(place, int(size)),)

    def _free(self, place: Place, address: Any) -> Values:
        self._device.settle("memory is freed")
        self._device.wait_all()
        self._device.memory.release(place, number(address))
        return ()


class Copies(Allocations):
    """Both ends are looked at when a copy is queued, and again when it is done."""

    def cudaMemcpyAsync(self, to: Any, source: Any, count: int, kind: Kind, stream: Any) -> Values:
        ends = number(to), number(source), int(count), kind
        self._require_direction(*ends)
        copy = Operation(kind.name, lambda: self._copy(*ends))
        self._device.enqueue(number(stream), copy)
        return ()

    def cudaMemcpy(self, to: Any, source: Any, count: int, kind: Kind) -> Values:
        self._device.settle("cudaMemcpy")
        self.cudaMemcpyAsync(to, source, count, kind, DEFAULT_STREAM)
        self._device.wait_all()
        return ()

    def cudaMemsetAsync(self, address: Any, value: int, count: int, stream: Any) -> Values:
        start, content = number(address), bytes([value]) * int(count)
        self._device.memory.place_of(start, int(count))
        fill = Operation("cudaMemset", lambda: self._device.write(start, content))
        self._device.enqueue(number(stream), fill)
        return ()

    def _copy(self, to: int, source: int, count: int, kind: Kind) -> None:
        self._require_direction(to, source, count, kind)
        ctypes.memmove(to, source, count)

    def _require_direction(self, to: int, source: int, count: int, kind: Kind) -> None:
        memory = self._device.memory
        found = memory.place_of(source, count), memory.place_of(to, count)
        if kind in DIRECTIONS and found != DIRECTIONS[kind]:
            raise Mistake("cudaErrorInvalidValue", f"{kind.name} from {found[0]} to {found[1]}")


class Streams(Copies):
    """Work in order."""

    def cudaStreamCreate(self) -> Values:
        handle = self._device.open_stream()
        return (real.cudaStream_t(handle),)

    def cudaStreamCreateWithFlags(self, flags: int) -> Values:
        return self.cudaStreamCreate()

    def cudaStreamSynchronize(self, stream: Any) -> Values:
        self._device.wait(number(stream))
        return ()

    def cudaStreamDestroy(self, stream: Any) -> Values:
        self._device.close_stream(number(stream))
        return ()


class Graphs(Streams):
    """Work that is recorded, and done again as a whole."""

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> Values:
        relaxed = real.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        self._device.begin_capture(number(stream), strict=mode != relaxed)
        return ()

    def cudaStreamEndCapture(self, stream: Any) -> Values:
        handle = self._device.handle()
        self._device.graphs[handle] = self._device.end_capture(number(stream))
        return (real.cudaGraph_t(handle),)

    def cudaStreamIsCapturing(self, stream: Any) -> Values:
        status = real.cudaStreamCaptureStatus
        active = self._device.captured(number(stream))
        name = "cudaStreamCaptureStatusActive" if active else "cudaStreamCaptureStatusNone"
        return (getattr(status, name),)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Values:
        operations = _of(self._device.graphs, graph, "graph")
        handle = self._device.handle()
        self._device.executables[handle] = list(operations)
        return (real.cudaGraphExec_t(handle),)

    def cudaGraphDestroy(self, graph: Any) -> Values:
        _of(self._device.graphs, graph, "graph")
        del self._device.graphs[number(graph)]
        return ()

    def cudaGraphLaunch(self, executable: Any, stream: Any) -> Values:
        operations = _of(self._device.executables, executable, "graph exec")
        self._device.enqueue(number(stream), *operations)
        return ()

    def cudaGraphExecDestroy(self, executable: Any) -> Values:
        _of(self._device.executables, executable, "graph exec")
        del self._device.executables[number(executable)]
        return ()


class Calls(Graphs):
    """All of them."""

    def cudaGetErrorString(self, error: real.cudaError_t) -> Values:
        return real.cudaGetErrorString(error)[1:]

    def cudaGetErrorName(self, error: real.cudaError_t) -> Values:
        return real.cudaGetErrorName(error)[1:]


def _of(things: dict[int, list[Operation]], handle: Any, what: str) -> list[Operation]:
    if number(handle) not in things:
        raise Mistake("cudaErrorInvalidValue", f"there is no {what} {number(handle):#x}")
    return things[number(handle)]
