"""TensorRT, or TensorRT for RTX, on an NVIDIA GPU."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from service.engines import tensorrt_library
from service.engines.cuda_device import Buffer, Stream
from service.engines.gpu import Gpu, NoGpu, find_gpu
from service.engines.tensorrt_library import Kernels, Library
from service.errors import DeviceUnavailable, EngineFailed
from service.manifest import Variant
from service.vision.detections import Floats, Outputs
from service.vision.preprocess import PREPROCESS, Canvas, Preprocess, tensor_of

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

log = logging.getLogger(__name__)


def require_gpu(library: Library) -> Gpu:
    """The GPU of this machine; raises DeviceUnavailable."""
    gpu = find_gpu()
    if isinstance(gpu, NoGpu):
        raise DeviceUnavailable(f"{library.name} needs an NVIDIA GPU: {gpu.reason}")
    return gpu


def load_plan(
    folder: Path,
    variant: Variant,
    preprocess: Preprocess = PREPROCESS["yolo"],
    profiler: "trt.IProfiler | None" = None,
) -> "TensorRtEngine":
    """The engine of a variant; raises EngineFailed or DeviceUnavailable."""
    assert variant.runtime in ("tensorrt", "tensorrt-rtx")
    library = tensorrt_library.load_library(variant.runtime)
    gpu = require_gpu(library)
    plan = library.plan_of(variant, gpu)
    kernels = Kernels(folder, f"{Path(variant.model).parent.name}.{gpu.target}.kernels")
    return TensorRtEngine(library, folder / plan, kernels, preprocess, profiler)


class TensorRtEngine:
    """Runs a plan: one context, one stream, buffers allocated once, one CUDA graph.

    With a profiler there is no CUDA graph, because TensorRT profiles single launches only. Raises
    EngineFailed.
    """

    def __init__(
        self,
        library: Library,
        plan: Path,
        kernels: Kernels,
        preprocess: Preprocess = PREPROCESS["yolo"],
        profiler: "trt.IProfiler | None" = None,
    ) -> None:
        self._library = library
        self._preprocess = preprocess
        self._log = library.log
        self._context: trt.IExecutionContext | None = None
        self._stream = Stream()  # before the plan is read: TensorRT for RTX needs a CUDA context
        self._launch = self._queue
        try:
            engine, self._context = self._load(plan, kernels)
            self._image, self._raw = self._bind(engine, self._context)
            if profiler is not None:
                self._context.profiler = profiler
            else:
                self._record()
                kernels.save()
        except Exception:
            self.close()
            raise

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._image.array.shape

    def infer(self, image: Canvas) -> Outputs:
        return (self.infer_tensor(tensor_of(image, self._preprocess)),)

    def infer_tensor(self, tensor: Floats) -> Floats:
        if self._context is None:
            raise EngineFailed("the engine is closed")
        np.copyto(self._image.array, tensor)
        self._launch()
        self._stream.wait()
        return self._raw.array.astype(np.float32)

    def close(self) -> None:
        self._context = None
        self._stream.close()

    def _load(
        self, plan: Path, kernels: Kernels
    ) -> "tuple[trt.ICudaEngine, trt.IExecutionContext]":
        runtime: trt.Runtime = self._library.module.Runtime(self._log)
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise EngineFailed(f"{self._library.name} could not load the plan: {self._log.reason}")
        context = self._library.create_context(engine, kernels)
        if context is None:
            raise EngineFailed(
                f"{self._library.name} could not prepare the plan: {self._log.reason}"
            )
        return engine, context

    def _bind(
        self, engine: "trt.ICudaEngine", context: "trt.IExecutionContext"
    ) -> tuple[Buffer, Buffer]:
        """Buffers for the one input and the one output."""
        module = self._library.module
        buffers = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape = tuple(engine.get_tensor_shape(name))
            buffer = self._stream.buffer(shape, module.nptype(engine.get_tensor_dtype(name)))
            context.set_tensor_address(name, buffer.device)
            buffers[engine.get_tensor_mode(name)] = buffer
        return buffers[module.TensorIOMode.INPUT], buffers[module.TensorIOMode.OUTPUT]

    def _record(self) -> None:
        """Record a CUDA graph, after one run for TensorRT's lazy set-up; slower without a graph."""
        self._queue()
        self._stream.wait()
        try:
            self._stream.record(self._queue)
            self._launch = self._stream.replay
        except EngineFailed as exc:
            log.warning("the launch is not recorded as a CUDA graph: %s", exc)

    def _queue(self) -> None:
        context = self._context
        assert context is not None
        self._stream.upload(self._image)
        if not context.execute_async_v3(self._stream.handle):
            raise EngineFailed(f"{self._library.name} could not run the model: {self._log.reason}")
        self._stream.download(self._raw)
