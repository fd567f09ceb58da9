"""The classes of TensorRT that run an engine: ONNX Runtime computes, in the device's memory."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort

from tests.vendor.device import Refused
from tests.vendor.fake_plan import read_plan
from tests.vendor.fake_tensorrt import Fake

Arrays = Mapping[str, np.ndarray]

LAYER_MS: Final = 0.25


class IProfiler(Fake):
    def __init__(self) -> None:
        self._constructed = True

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class Dims(Fake):
    def __init__(self, shape: Any = ()) -> None:
        self._constructed, self._shape = True, tuple(map(int, shape))

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, index: Any) -> Any:
        return self._shape[index]


class Runtime(Fake):
    def __init__(self, logger: Any) -> None:
        self._constructed, self._logger = True, logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        plan, here = read_plan(bytes(serialized_engine)), self._vendor.interface.version
        if plan is None or plan.version != here or self._vendor.fails("deserialize"):
            self._vendor.error(self._logger, f"The plan was not made by TensorRT {here}")
            return None
        tensors = plan.tensors()
        return self._vendor.new(
            "ICudaEngine",
            num_io_tensors=len(tensors),
            _plan=plan,
            _tensors=tensors,
            _logger=self._logger,
        )


class ICudaEngine(Fake):
    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = "INPUT" if self._tensors[name].is_input else "OUTPUT"
        return self._vendor.enums["TensorIOMode"][mode]

    def get_tensor_shape(self, name: str) -> Any:
        return self._vendor.classes["Dims"](self._tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._vendor.module, self._tensors[name].dtype.name)

    def create_engine_inspector(self) -> Any:
        return self._vendor.new("EngineInspector", _plan=self._plan)

    def create_execution_context(self) -> Any:
        if self._vendor.fails("context"):
            self._vendor.error(self._logger, "Cuda Runtime (out of memory)")
            return None
        return self._vendor.new(
            "IExecutionContext",
            profiler=None,
            _plan=self._plan,
            _tensors=self._tensors,
            _logger=self._logger,
            _addresses={},
        )


class EngineInspector(Fake):
    def get_engine_information(self, format: Any) -> str:
        assert format.name == "JSON"
        return self._plan.information()


class IExecutionContext(Fake):
    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return name in self._tensors

    def execute_async_v3(self, stream_handle: int) -> bool:
        device = self._vendor.device
        if self._addresses.keys() != self._tensors.keys() or self._vendor.fails("execute"):
            self._vendor.error(self._logger, "enqueueV3: Cuda failure")
            return False
        try:
            device.enqueue(stream_handle, self._run)
            # With a profiler TensorRT waits and reports, which it cannot in a capture.
            if self.profiler is not None and not device.captured(stream_handle):
                device.cudaStreamSynchronize(stream_handle)
                for layer in self._plan.layer_names():
                    self.profiler.report_layer_time(layer, LAYER_MS)
        except Refused as exc:
            device.mistakes.append(f"execute_async_v3: {exc}")
            return False
        return True

    def _run(self) -> None:
        device = self._vendor.device
        feeds = {
            name: np.frombuffer(device.read(self._addresses[name], each.bytes), each.dtype).reshape(
                each.shape
            )
            for name, each in self._tensors.items()
            if each.is_input
        }
        for name, made in _execute(self._plan.model, feeds).items():
            device.write(self._addresses[name], np.ascontiguousarray(made).tobytes())


def _execute(model: onnx.ModelProto, feeds: Arrays) -> Arrays:
    """Without optimisation: with it, ONNX Runtime cannot run Q/DQ in float16."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
