"""CUDA for an engine: buffers on host and device, one stream, one CUDA graph."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from service.errors import DeviceUnavailable, EngineFailed

try:
    from cuda.bindings import runtime as cudart
except ImportError as exc:
    raise DeviceUnavailable("cuda-bindings is not installed: pip install 'qyolo[gpu]'") from exc


class Buffer:
    """An array in pinned host memory, and memory of the same size on the device."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        kind = np.dtype(dtype)
        self.bytes = int(np.prod(shape)) * kind.itemsize
        self.host: int = _call(cudart.cudaMallocHost(self.bytes))
        try:
            self.device: int = _call(cudart.cudaMalloc(self.bytes))
        except EngineFailed:
            cudart.cudaFreeHost(self.host)
            raise
        memory = (ctypes.c_uint8 * self.bytes).from_address(self.host)
        self.array: NDArray[Any] = np.ctypeslib.as_array(memory).view(kind).reshape(shape)

    def free(self) -> None:
        cudart.cudaFree(self.device)
        cudart.cudaFreeHost(self.host)


class Stream:
    """A CUDA stream on the current device; its methods raise EngineFailed if CUDA fails."""

    def __init__(self) -> None:
        self._stream: Any = _call(cudart.cudaStreamCreate())
        self._buffers: list[Buffer] = []
        self._graph: Any = None

    @property
    def handle(self) -> int:
        """The stream as an address, for other libraries."""
        return int(self._stream)

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """A buffer that is freed with the stream."""
        buffer = Buffer(shape, dtype)
        self._buffers.append(buffer)
        return buffer

    def upload(self, buffer: Buffer) -> None:
        """Queue a copy from the host to the device."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        args = (buffer.device, buffer.host, buffer.bytes, kind, self._stream)
        _call(cudart.cudaMemcpyAsync(*args))

    def download(self, buffer: Buffer) -> None:
        """Queue a copy from the device to the host."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        args = (buffer.host, buffer.device, buffer.bytes, kind, self._stream)
        _call(cudart.cudaMemcpyAsync(*args))

    def record(self, work: Callable[[], None]) -> None:
        """Record what `work` queues as a CUDA graph for `replay`, instead of running it."""
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call(cudart.cudaStreamBeginCapture(self._stream, mode))
        try:
            work()
        except EngineFailed:
            _, graph = cudart.cudaStreamEndCapture(self._stream)
            cudart.cudaGraphDestroy(graph)
            raise
        graph = _call(cudart.cudaStreamEndCapture(self._stream))
        try:
            self._graph = _call(cudart.cudaGraphInstantiate(graph, 0))
        finally:
            cudart.cudaGraphDestroy(graph)

    def replay(self) -> None:
        """Queue the recorded graph: one launch for all of its work."""
        _call(cudart.cudaGraphLaunch(self._graph, self._stream))

    def wait(self) -> None:
        """Wait until all queued work is done. Releases the GIL."""
        _call(cudart.cudaStreamSynchronize(self._stream))

    def close(self) -> None:
        """Free everything; a second call does nothing."""
        if self._stream is None:
            return
        if self._graph is not None:
            cudart.cudaGraphExecDestroy(self._graph)
        for buffer in self._buffers:
            buffer.free()
        cudart.cudaStreamDestroy(self._stream)
        self._buffers, self._graph, self._stream = [], None, None


def _call(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call, which returns its error code first."""
    error, *values = result
    if error != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(error)
        raise EngineFailed(f"CUDA: {text.decode()}")
    return values[0] if values else None
