"""TensorRT, or TensorRT for RTX, on an NVIDIA GPU."""

import logging
from pathlib import Path
from threading import Lock
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


def load_plan(folder: Path, variant: Variant, raw: bool = False) -> "Plan":
    """The plan of a variant's served graph, or of its `raw` graph.

    Raises EngineFailed or DeviceUnavailable.
    """
    assert variant.runtime in ("tensorrt", "tensorrt-rtx")
    library = tensorrt_library.load_library(variant.runtime)
    gpu = require_gpu(library)
    file = Path(library.plan_of(variant, gpu))
    if raw:
        assert variant.raw is not None
        file = Path(variant.raw).with_name(file.name)
    kernels = Kernels(folder, f"{'-'.join(file.parent.parts)}.{gpu.target}.kernels")
    return Plan(library, folder / file, kernels)


class TensorRtEngine:
    """Runs the served plan of a variant, and its raw one from the first `infer_tensor` on.

    A variant without `raw` has one plan, of the whole graph. Raises what `load_plan` raises.
    """

    def __init__(
        self, folder: Path, variant: Variant, preprocess: Preprocess = PREPROCESS["yolo"]
    ) -> None:
        self._folder = folder
        self._variant = variant
        self._preprocess = preprocess
        self._loading = Lock()
        self._served: Plan | None = load_plan(folder, variant)
        self._whole = self._served if variant.raw is None else None

    def infer(self, image: Canvas) -> Outputs:
        if self._variant.raw is None:
            return _open(self._whole).run(tensor_of(image, self._preprocess))
        return _open(self._served).run(image)

    def infer_tensor(self, tensor: Floats) -> Floats:
        with self._loading:
            if self._whole is None and self._served is not None:
                self._whole = load_plan(self._folder, self._variant, raw=True)
        return np.asarray(_open(self._whole).run(tensor)[0], np.float32)

    def close(self) -> None:
        with self._loading:
            for plan in (self._served, self._whole):
                if plan is not None:
                    plan.close()
            self._served = self._whole = None


def _open(plan: "Plan | None") -> "Plan":
    if plan is None:
        raise EngineFailed("the engine is closed")
    return plan


class Plan:
    """A loaded plan: one context, one stream, buffers allocated once, one CUDA graph.

    Raises EngineFailed.
    """

    def __init__(self, library: Library, file: Path, kernels: Kernels) -> None:
        self._library = library
        self._log = library.log
        self._context: trt.IExecutionContext | None = None
        self._stream = Stream()  # before the plan is read: TensorRT for RTX needs a CUDA context
        self._launch = self._queue
        try:
            engine, self._context = self._load(file, kernels)
            self._image, self._outputs = self._bind(engine, self._context)
            self._record()
            kernels.save()
        except Exception:
            self.close()
            raise

    def run(self, image: Canvas | Floats) -> Outputs:
        """What the graph reads -> its outputs, f32, in arrays of their own."""
        if self._context is None:
            raise EngineFailed("the engine is closed")
        np.copyto(self._image.array, image)
        self._launch()
        self._stream.wait()
        return tuple(each.array.astype(np.float32) for each in self._outputs)

    def close(self) -> None:
        self._context = None
        self._stream.close()

    def _load(
        self, file: Path, kernels: Kernels
    ) -> "tuple[trt.ICudaEngine, trt.IExecutionContext]":
        try:
            serialized = file.read_bytes()
        except OSError as exc:
            raise EngineFailed(f"the plan cannot be read: {exc}") from exc
        runtime: trt.Runtime = self._library.module.Runtime(self._log)
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(serialized)
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
    ) -> tuple[Buffer, list[Buffer]]:
        """Buffers for the one input, and for the outputs in the order of their names.

        TensorRT does not promise to keep the order of the graph.
        """
        module = self._library.module
        inputs: list[Buffer] = []
        outputs: list[Buffer] = []
        for name in sorted(map(engine.get_tensor_name, range(engine.num_io_tensors))):
            shape = tuple(engine.get_tensor_shape(name))
            buffer = self._stream.buffer(shape, module.nptype(engine.get_tensor_dtype(name)))
            context.set_tensor_address(name, buffer.device)
            is_input = engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(buffer)
        (image,) = inputs
        return image, outputs

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
        for output in self._outputs:
            self._stream.download(output)
