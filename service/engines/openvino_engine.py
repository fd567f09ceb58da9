"""OpenVINO on the CPU."""

import logging
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

import numpy as np

from service.engines.cpu import cpu_fingerprint
from service.errors import DeviceUnavailable, EngineFailed
from service.manifest import FloatType
from service.vision.detections import Floats, Outputs
from service.vision.preprocess import PREPROCESS, Canvas, Preprocess

try:
    import openvino as ov
    from openvino.preprocess import PrePostProcessor
except ImportError as exc:
    raise DeviceUnavailable("openvino is not installed: pip install 'qyolo[cpu]'") from exc

log = logging.getLogger(__name__)


def blob_key() -> str:
    """What a blob is compiled for: the OpenVINO version, the CPU, and the kind of its input."""
    return f"openvino-{ov.get_version()}-{cpu_fingerprint()}-canvas"


def compile_options(
    threads: int, float_type: FloatType = "f32", streams: int = 1
) -> dict[str, object]:
    """Options for the lowest latency of one stream, or the highest throughput of several.

    Without the precision hint OpenVINO runs float layers in bfloat16 on CPUs that have it, and the
    fp32 variant would not be fp32.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": streams,
        "INFERENCE_PRECISION_HINT": float_type,
        "INFERENCE_NUM_THREADS": threads,
    }


def with_byte_input(network: ov.Model, how: Preprocess) -> ov.Model:
    """A network that reads floats as one that reads the canvas of `Engine.infer`."""
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    planes = steps.input().preprocess().convert_element_type(ov.Type.f32)
    if how.divisor != 1:
        planes.scale(how.divisor)
    if how.bgr:
        planes.reverse_channels()
    return steps.build()


class OpenVinoEngine:
    """Runs an IR, or its blob: the same network, compiled at build time.

    `raw` is the IR of the whole graph, which is compiled when `infer_tensor` is first called;
    without it `model` is that graph.
    """

    def __init__(
        self,
        model: Path,
        raw: Path | None,
        blob: Path | None,
        threads: int,
        float_type: FloatType = "f32",
        streams: int = 1,
        preprocess: Preprocess = PREPROCESS["yolo"],
    ) -> None:
        self._whole = raw or model
        self._options = compile_options(threads, float_type, streams)
        self._streams = streams
        # A blob is compiled for one stream.
        compiled = _import(blob, self._options) if blob and streams == 1 else None
        if compiled is None:
            reads_bytes = raw is not None
            compiled = _compile(
                model,
                self._options,
                lambda read: read if reads_bytes else with_byte_input(read, preprocess),
            )
        self._served: _Requests | None = _Requests(compiled, streams)
        self._for_tensors: _Requests | None = None
        self._compiling = Lock()

    def infer(self, image: Canvas) -> Outputs:
        return _open(self._served).infer(image)

    def infer_tensor(self, tensor: Floats) -> Floats:
        with self._compiling:
            if self._for_tensors is None and self._served is not None:
                compiled = _compile(self._whole, self._options, lambda read: read)
                self._for_tensors = _Requests(compiled, self._streams)
        return _open(self._for_tensors).infer(tensor)[0]

    def close(self) -> None:
        with self._compiling:
            self._served = self._for_tensors = None


class _Requests:
    """The infer requests of one compiled network: one for each stream."""

    def __init__(self, compiled: ov.CompiledModel, streams: int) -> None:
        outputs = compiled.outputs
        static = all(
            each.partial_shape.is_static and each.element_type == ov.Type.f32 for each in outputs
        )
        self._shapes = [tuple(each.shape) for each in outputs] if static else None
        self._idle: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def infer(self, image: Canvas | Floats) -> Outputs:
        request = self._idle.get()
        try:
            if self._shapes is None:
                results = request.infer([image], share_inputs=True)
                return tuple(np.asarray(each, np.float32) for each in results.to_tuple())
            # OpenVINO writes into the caller's arrays: a copy would take as long as the decoding.
            outputs = tuple(np.empty(shape, np.float32) for shape in self._shapes)
            for index, array in enumerate(outputs):
                request.set_output_tensor(index, ov.Tensor(array, shared_memory=True))
            request.infer([image], share_inputs=True, share_outputs=True)
            return outputs
        except RuntimeError as exc:
            raise EngineFailed("OpenVINO could not run the model") from exc
        finally:
            self._idle.put(request)


def _open(requests: _Requests | None) -> _Requests:
    if requests is None:
        raise EngineFailed("the engine is closed")
    return requests


def _import(blob: Path, options: dict[str, object]) -> ov.CompiledModel | None:
    try:
        return ov.Core().import_model(blob.read_bytes(), "CPU", options)
    except RuntimeError:
        log.warning("the compiled blob cannot be loaded; compiling the model instead")
        return None


def _compile(
    model: Path, options: dict[str, object], change: Callable[[ov.Model], ov.Model]
) -> ov.CompiledModel:
    core = ov.Core()
    try:
        return core.compile_model(change(core.read_model(model)), "CPU", options)
    except RuntimeError as exc:
        raise EngineFailed("OpenVINO could not load the model") from exc
