"""The simulated device does what CUDA's runtime does, and catches what would go wrong there."""

import ctypes

import pytest

from tests.vendor.fake_tensorrt import BadScript, NotScripted


@pytest.fixture
def cuda(cuda_inventory):
    from tests.vendor.fake_cuda import FakeCuda

    return FakeCuda(cuda_inventory)


@pytest.fixture
def cudart(cuda):
    return cuda.module


class Box:
    """Memory on both sides and a stream."""

    def __init__(self, cudart, size: int = 16) -> None:
        self.cudart = cudart
        self.size = size
        self.host = value(cudart.cudaMallocHost(size))
        self.device = value(cudart.cudaMalloc(size))
        self.stream = value(cudart.cudaStreamCreate())

    def up(self):
        kind = self.cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        return self.cudart.cudaMemcpyAsync(self.device, self.host, self.size, kind, self.stream)

    def down(self):
        kind = self.cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        return self.cudart.cudaMemcpyAsync(self.host, self.device, self.size, kind, self.stream)

    def fill(self, letter: bytes) -> None:
        ctypes.memset(self.host, letter[0], self.size)

    def content(self) -> bytes:
        return ctypes.string_at(self.host, self.size)

    def wait(self):
        return self.cudart.cudaStreamSynchronize(self.stream)

    def begin(self, mode: str = "ThreadLocal"):
        modes = self.cudart.cudaStreamCaptureMode
        name = f"cudaStreamCaptureMode{mode}"
        return self.cudart.cudaStreamBeginCapture(self.stream, getattr(modes, name))

    def record(self, *work):
        value(self.begin())
        for each in work:
            value(each())
        graph = value(self.cudart.cudaStreamEndCapture(self.stream))
        executable = value(self.cudart.cudaGraphInstantiate(graph, 0))
        value(self.cudart.cudaGraphDestroy(graph))
        return executable

    def close(self) -> None:
        value(self.cudart.cudaFree(self.device))
        value(self.cudart.cudaFreeHost(self.host))
        value(self.cudart.cudaStreamDestroy(self.stream))


def value(result):
    error, *values = result
    assert error.name == "cudaSuccess"
    return values[0] if values else None


@pytest.fixture
def box(cudart):
    return Box(cudart)


def test_bytes_go_to_the_device_and_back(box, cuda):
    box.fill(b"a")
    value(box.up())
    value(box.wait())
    box.fill(b"b")
    value(box.down())
    assert box.content() == b"b" * box.size  # nothing is there before it is waited for
    value(box.wait())
    assert box.content() == b"a" * box.size
    box.close()
    cuda.device.require_clean()


def test_a_copy_takes_what_is_there_when_it_runs(box):
    box.fill(b"a")
    value(box.up())
    box.fill(b"b")
    value(box.down())
    value(box.wait())
    assert box.content() == b"b" * box.size


def test_memory_is_not_cleared(box):
    value(box.down())
    value(box.wait())
    assert box.content() == b"\xcd" * box.size


def test_what_is_recorded_runs_when_it_is_launched(box, cudart, cuda):
    executable = box.record(box.up, box.down)
    assert cuda.device.done == []
    for _ in range(2):
        box.fill(b"c")
        value(cudart.cudaGraphLaunch(executable, box.stream))
        value(box.wait())
    assert cuda.device.done == ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"] * 2
    value(cudart.cudaGraphExecDestroy(executable))
    box.close()
    cuda.device.require_clean()


def test_what_is_left_behind_is_a_leak(box, cudart, cuda):
    box.record(box.up)
    value(box.begin())
    value(cudart.cudaStreamEndCapture(box.stream))
    kinds = ["16 bytes of host memory", "16 bytes of device memory", "stream", "graph 0x", "exec"]
    assert len(cuda.device.leaks) == len(kinds)
    for kind, leak in zip(kinds, cuda.device.leaks, strict=True):
        assert kind in leak
    with pytest.raises(AssertionError):
        cuda.device.require_clean()


def test_a_copy_beyond_what_is_allocated_is_a_fault(box, cuda):
    box.size += 1
    assert box.up()[0].name == "cudaErrorInvalidValue"
    assert "17 bytes" in cuda.device.faults[0]
    assert "not all allocated" in cuda.device.faults[0]


def test_a_copy_in_the_wrong_direction_is_a_fault(box, cuda):
    box.host, box.device = box.device, box.host
    assert box.up()[0].name == "cudaErrorInvalidValue"
    assert cuda.device.faults == ["cudaMemcpyAsync: cudaMemcpyHostToDevice from device to host"]


def test_nothing_is_freed_twice_or_by_the_wrong_function(box, cudart, cuda):
    value(cudart.cudaFree(box.device))
    assert cudart.cudaFree(box.device)[0].name == "cudaErrorInvalidValue"
    assert cudart.cudaFree(box.host)[0].name == "cudaErrorInvalidValue"
    assert cudart.cudaFreeHost(box.host + 1)[0].name == "cudaErrorInvalidValue"
    value(cudart.cudaStreamDestroy(box.stream))
    assert cudart.cudaStreamDestroy(box.stream)[0].name == "cudaErrorInvalidResourceHandle"
    assert [each.partition(": ")[0] for each in cuda.device.faults] == [
        "cudaFree", "cudaFree", "cudaFreeHost", "cudaStreamDestroy",
    ]  # fmt: skip
    assert cuda.device.faults[0] == "cudaFree: device memory is freed twice"


def test_freed_memory_is_not_used(box, cudart, cuda):
    value(cudart.cudaFree(box.device))
    assert box.up()[0].name == "cudaErrorInvalidValue"
    assert cuda.device.faults == ["cudaMemcpyAsync: device memory was freed"]


def test_a_graph_that_uses_freed_memory_is_a_fault_when_it_runs(box, cudart, cuda):
    executable = box.record(box.up)
    value(cudart.cudaFree(box.device))
    value(cudart.cudaGraphLaunch(executable, box.stream))
    assert box.wait()[0].name == "cudaErrorInvalidValue"
    assert cuda.device.faults == ["cudaStreamSynchronize: device memory was freed"]


@pytest.mark.parametrize("mode", ["Global", "ThreadLocal"])
def test_a_capture_forbids_allocation_and_is_broken_by_it(mode, box, cudart, cuda):
    value(box.begin(mode))
    error, address = cudart.cudaMalloc(4)
    assert (error.name, address) == ("cudaErrorStreamCaptureUnsupported", None)
    error, graph = cudart.cudaStreamEndCapture(box.stream)
    assert (error.name, graph) == ("cudaErrorStreamCaptureInvalidated", None)
    assert cuda.device.faults == ["cudaMalloc: memory is allocated during a capture"]


def test_a_relaxed_capture_does_not(box, cudart):
    value(box.begin("Relaxed"))
    value(cudart.cudaMalloc(4))
    value(cudart.cudaStreamEndCapture(box.stream))


def test_a_captured_stream_cannot_be_waited_for(box, cudart, cuda):
    value(box.begin())
    status = value(cudart.cudaStreamIsCapturing(box.stream))
    assert status.name == "cudaStreamCaptureStatusActive"
    assert box.wait()[0].name == "cudaErrorStreamCaptureUnsupported"
    assert cuda.device.faults == ["cudaStreamSynchronize: a captured stream is waited for"]


def test_captures_begin_and_end_in_turn(box, cudart, cuda):
    assert cudart.cudaStreamEndCapture(box.stream)[0].name == "cudaErrorIllegalState"
    value(box.begin())
    assert box.begin()[0].name == "cudaErrorIllegalState"
    assert len(cuda.device.faults) == 2


def test_a_graph_must_exist(box, cudart, cuda):
    executable = box.record(box.up)
    value(cudart.cudaGraphExecDestroy(executable))
    for result in (
        cudart.cudaGraphExecDestroy(executable),
        cudart.cudaGraphLaunch(executable, box.stream),
        cudart.cudaGraphInstantiate(executable, 0),
        cudart.cudaGraphDestroy(executable),
    ):
        assert result[0].name == "cudaErrorInvalidValue"
    assert len(cuda.device.faults) == 4


def test_memory_runs_out(cudart, cuda):
    free, total = cudart.cudaMemGetInfo()[1:]
    assert free == total
    error, address = cudart.cudaMalloc(total + 1)
    assert (error.name, address) == ("cudaErrorMemoryAllocation", None)
    assert cudart.cudaGetErrorString(error)[1] == b"out of memory"
    assert cudart.cudaGetErrorName(error)[1] == b"cudaErrorMemoryAllocation"
    assert cudart.cudaGetLastError()[0] == error
    assert cudart.cudaGetLastError()[0].name == "cudaSuccess"
    value(cudart.cudaMalloc(100))
    assert cudart.cudaMemGetInfo()[1:] == (total - 100, total)
    assert cuda.device.faults == []


def test_calls_fail_when_they_are_told_to(cudart, cuda):
    cuda.fail("cudaMalloc", calls=2, after=1)
    names = [cudart.cudaMalloc(4)[0].name for _ in range(4)]
    assert names == ["cudaSuccess", *["cudaErrorMemoryAllocation"] * 2, "cudaSuccess"]
    cuda.fail("cudaStreamSynchronize", "cudaErrorLaunchFailure")
    assert cudart.cudaStreamSynchronize(0)[0].name == "cudaErrorLaunchFailure"
    assert cuda.device.faults == []
    assert cuda.calls["cudaMalloc"] == 4
    with pytest.raises(BadScript, match="cudaMaloc is not simulated"):
        cuda.fail("cudaMaloc")
    with pytest.raises(BadScript, match="there is no cudaErrorNome"):
        cuda.fail("cudaMalloc", "cudaErrorNome")


def test_a_capture_ends_though_its_end_fails(box, cudart, cuda):
    cuda.fail("cudaStreamEndCapture", "cudaErrorStreamCaptureInvalidated")
    value(box.begin())
    assert cudart.cudaStreamEndCapture(box.stream)[0].name == "cudaErrorStreamCaptureInvalidated"
    value(box.wait())
    box.close()
    cuda.device.require_clean()


def test_a_call_takes_what_the_real_one_takes(box, cudart):
    for args in ((), (1, 2), ("4",), (None,)):
        with pytest.raises(TypeError, match="cudaMalloc"):
            cudart.cudaMalloc(*args)
    with pytest.raises(TypeError, match="kind: cudaMemcpyKind"):
        cudart.cudaMemcpyAsync(box.device, box.host, 4, 1, box.stream)
    with pytest.raises(TypeError, match="an address or a handle"):
        cudart.cudaStreamSynchronize("stream")
    value(cudart.cudaMalloc(size=4))
    value(cudart.cudaStreamSynchronize(int(box.stream)))


def test_what_is_not_simulated_says_so(cudart):
    with pytest.raises(NotScripted, match="cudaEventCreate is not simulated"):
        cudart.cudaEventCreate()
    with pytest.raises(AttributeError, match="cudaMaloc"):
        cudart.cudaMaloc(4)


def test_enums_and_handles_are_the_real_ones(cudart, cuda_inventory):
    from cuda.bindings import runtime as real

    assert cudart.cudaError_t is real.cudaError_t
    assert isinstance(value(cudart.cudaStreamCreate()), real.cudaStream_t)
    assert {name for name in vars(real) if not name.startswith("_")} <= vars(cudart).keys()


def test_every_simulated_function_exists(cuda_inventory):
    from tests.vendor.cuda_calls import Calls

    simulated = {name for name in dir(Calls) if name.startswith("cuda")}
    assert simulated <= cuda_inventory.functions.keys()


def test_memory_is_set(box, cudart):
    value(cudart.cudaMemsetAsync(box.device, ord("x"), box.size, box.stream))
    value(box.down())
    value(box.wait())
    assert box.content() == b"x" * box.size


def test_a_copy_that_waits(box, cudart):
    box.fill(b"a")
    kinds = cudart.cudaMemcpyKind
    value(cudart.cudaMemcpy(box.device, box.host, 16, kinds.cudaMemcpyHostToDevice))
    box.fill(b"b")
    value(cudart.cudaMemcpy(box.host, box.device, 16, kinds.cudaMemcpyDefault))
    assert box.content() == b"a" * 16
