"""The classes of TensorRT that need a driver: ONNX Runtime executes the graph beside the plan.

Everything else of the module is the real one; the compiler of TensorRT for RTX stands for that of
TensorRT too, on a machine with a GPU of capability 8.9.
"""

import ctypes
import json
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnxruntime as ort

from service.engines.tensorrt_library import TensorRtRuntime
from tests.vendor.fake_cuda import FakeCuda, Mistake

Failure = Literal["deserialize", "context", "execute"]

KERNELS: Final = b"kernels of an RTX 4090"
TIMINGS: Final = b"times of kernels"


class FakeDriver:
    """Loads the plans that lie in `folder`; `fail` makes calls of a kind fail."""

    def __init__(self, real: Any, runtime: TensorRtRuntime, folder: Path) -> None:
        self.cuda = FakeCuda()
        self.real, self.runtime, self.folder = real, runtime, folder
        self.offered: list[bytes] = []  # the saved kernels that engines were given
        self._failures: dict[Failure, Iterator[bool]] = {}
        self.module: Any = ModuleType(runtime)
        vars(self.module).update(vars(real))
        self.module.Runtime = lambda log: Runtime(self, log)
        if runtime == "tensorrt":
            self.module.Builder = lambda log: Here(real, log)

    def fail(self, what: Failure, calls: int | None = None, after: int = 0) -> None:
        """Let calls fail from now on, or only so many of them, once `after` have succeeded."""
        failing = repeat(True) if calls is None else repeat(True, calls)
        self._failures[what] = chain(repeat(False, after), failing)

    def fails(self, what: Failure, log: Any) -> bool:
        """Whether this call fails; the log then has a reason."""
        failed = next(self._failures.get(what, repeat(False, 0)), False)
        if failed:
            log.log(self.real.ILogger.Severity.ERROR, f"Cuda Runtime ({what})")
        return failed


class Here:
    """A Builder as on a machine with a GPU, for which it compiles unless told otherwise."""

    def __init__(self, real: Any, log: Any) -> None:
        self._real, self._builder = real, real.Builder(log)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def create_builder_config(self) -> Any:
        config = self._builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(self._real.ComputeCapability.SM89, 0)
        return HereConfig(config)

    def build_serialized_network(self, network: Any, config: "HereConfig") -> Any:
        return self._builder.build_serialized_network(network, config.config)


class HereConfig:
    """The real IBuilderConfig, with a timing cache: TensorRT for RTX has none."""

    def __init__(self, config: Any) -> None:
        vars(self)["config"] = config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.config, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.config, name, value)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> bytes:
        return serialized_timing_cache

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        return cache in (b"", TIMINGS)

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: TIMINGS)


class Runtime:
    def __init__(self, driver: FakeDriver, log: Any) -> None:
        self._driver, self._log = driver, log

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        if self._driver.fails("deserialize", self._log):
            return None
        plans = self._driver.folder.rglob("*.plan")
        found = [each for each in plans if each.read_bytes() == serialized_engine]
        assert found, "no such plan in the folder"
        return Engine(self._driver, self._log, found[0].with_name("model.onnx"))


class Engine:
    def __init__(self, driver: FakeDriver, log: Any, graph: Path) -> None:
        self._driver, self._log = driver, log
        self._session = _open(onnx.load(graph))
        # Backwards: the library does not promise the graph's order.
        self._tensors = [*self._session.get_outputs()[::-1], *self._session.get_inputs()]

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index].name

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._driver.real.TensorIOMode
        return modes.INPUT if name == self._session.get_inputs()[0].name else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> Any:
        return self._driver.real.Dims(self._tensor(name).shape)

    def get_tensor_dtype(self, name: str) -> Any:
        types = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
        return getattr(self._driver.real, types[self._tensor(name).type])

    def _tensor(self, name: str) -> Any:
        (tensor,) = (each for each in self._tensors if each.name == name)
        return tensor

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda format: json.dumps({"Layers": []}))

    def create_runtime_config(self) -> Any:
        return RuntimeConfig(self._driver)

    def create_execution_context(self, runtime_config: Any = None) -> Any:
        if self._driver.fails("context", self._log):
            return None
        return Context(self._driver, self._log, self._session, runtime_config)


class RuntimeConfig:
    def __init__(self, driver: FakeDriver) -> None:
        self.cuda_graph_strategy = driver.real.CudaGraphStrategy.DISABLED
        self.cache: Any = None
        self._driver = driver

    def create_runtime_cache(self) -> Any:
        return RuntimeCache(self._driver)

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    def __init__(self, driver: FakeDriver) -> None:
        self.kernels = b""
        self._driver = driver

    def deserialize(self, blob: bytes) -> bool:
        self._driver.offered.append(blob)
        self.kernels = blob if blob == KERNELS else b""
        return blob == KERNELS

    def serialize(self) -> bytes:
        return self.kernels


class Context:
    def __init__(self, driver: FakeDriver, log: Any, session: Any, config: Any) -> None:
        self._driver, self._log, self._session = driver, log, session
        self._cache = config and config.cache
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._driver.fails("execute", self._log):
            return False
        if self._cache is not None:
            self._cache.kernels = KERNELS
        try:
            self._driver.cuda.enqueue(stream_handle, self._run)
        except Mistake as exc:
            self._driver.cuda.mistakes.append(f"execute_async_v3: {exc}")
            return False
        return True

    def _run(self) -> None:
        (source,), targets = self._session.get_inputs(), self._session.get_outputs()
        image = np.empty(source.shape, np.uint8 if "uint8" in source.type else np.float32)
        at = self._driver.cuda.memory(self._addresses[source.name], image.nbytes, "device")
        ctypes.memmove(image.ctypes.data, at, image.nbytes)
        outputs = self._session.run(None, {source.name: image})
        for target, made in zip(targets, outputs, strict=True):
            to = self._driver.cuda.memory(self._addresses[target.name], made.nbytes, "device")
            ctypes.memmove(to, np.ascontiguousarray(made).ctypes.data, made.nbytes)


def _open(model: onnx.ModelProto) -> ort.InferenceSession:
    """Without optimisation: with it, ONNX Runtime cannot run Q/DQ in float16."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
