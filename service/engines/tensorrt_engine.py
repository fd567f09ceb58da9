"""TensorRT on an NVIDIA GPU."""

import logging
from pathlib import Path
from typing import Final

import numpy as np

from service.engines.cuda_device import Buffer, Stream
from service.engines.gpu import NoGpu, find_gpu
from service.errors import DeviceUnavailable, EngineFailed
from service.vision.detections import Floats, Outputs
from service.vision.preprocess import PREPROCESS, Canvas, Preprocess, tensor_of

try:
    import tensorrt as trt
except ImportError as exc:  # the package, or one of its libraries
    raise DeviceUnavailable(f"TensorRT cannot be loaded ({exc}); see docs/how-to/gpu.md") from exc

log = logging.getLogger(__name__)

LOG_LEVELS: Final = {
    trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
    trt.ILogger.Severity.ERROR: logging.ERROR,
    trt.ILogger.Severity.WARNING: logging.WARNING,
    trt.ILogger.Severity.INFO: logging.DEBUG,
    trt.ILogger.Severity.VERBOSE: logging.DEBUG,
}


class TensorRtLog(trt.ILogger):  # type: ignore[misc]
    """Passes TensorRT's messages to our log and keeps the last error: its calls return none."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.reason = "it gave no reason"

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        level = LOG_LEVELS[severity]
        if level == logging.ERROR:
            self.reason = msg
        log.log(level, "TensorRT: %s", msg)


def plan_key() -> str:
    """What a plan is compiled for: the TensorRT version and the GPU. Raises DeviceUnavailable."""
    gpu = find_gpu()
    if isinstance(gpu, NoGpu):
        raise DeviceUnavailable(f"TensorRT needs an NVIDIA GPU: {gpu.reason}")
    return f"tensorrt-{trt.__version__}-{gpu.fingerprint}"


class TensorRtEngine:
    """Runs a plan: one context, one stream, buffers allocated once, one CUDA graph.

    With a profiler there is no CUDA graph, because TensorRT profiles single launches only. Raises
    EngineFailed, or DeviceUnavailable if the plan was built for another GPU or TensorRT version.
    """

    def __init__(
        self,
        plan: Path,
        key: str | None,
        preprocess: Preprocess = PREPROCESS["yolo"],
        profiler: trt.IProfiler | None = None,
    ) -> None:
        current = plan_key()
        if key != current:
            raise DeviceUnavailable(
                f"{plan.name} was built for {key}, this machine is {current}: build it again here"
            )
        self._preprocess = preprocess
        self._log = TensorRtLog()
        runtime = trt.Runtime(self._log)
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise EngineFailed(f"TensorRT could not load the plan: {self._log.reason}")
        context: trt.IExecutionContext | None = engine.create_execution_context()
        if context is None:
            raise EngineFailed(f"TensorRT could not prepare the plan: {self._log.reason}")
        self._context: trt.IExecutionContext | None = context
        self._stream = Stream()
        self._launch = self._queue
        try:
            self._image, self._raw = self._bind(engine, context)
            if profiler is not None:
                context.profiler = profiler
            else:
                self._record()
        except Exception:
            self.close()
            raise

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

    def _bind(
        self, engine: trt.ICudaEngine, context: trt.IExecutionContext
    ) -> tuple[Buffer, Buffer]:
        """Buffers for the one input and the one output."""
        buffers = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape = tuple(engine.get_tensor_shape(name))
            buffer = self._stream.buffer(shape, trt.nptype(engine.get_tensor_dtype(name)))
            context.set_tensor_address(name, buffer.device)
            buffers[engine.get_tensor_mode(name)] = buffer
        return buffers[trt.TensorIOMode.INPUT], buffers[trt.TensorIOMode.OUTPUT]

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
            raise EngineFailed(f"TensorRT could not run the model: {self._log.reason}")
        self._stream.download(self._raw)
