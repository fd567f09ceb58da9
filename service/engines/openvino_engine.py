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
from service.vision.detections import Floats
from service.vision.preprocess import Planes

try:
    import openvino as ov
    from openvino.preprocess import PrePostProcessor
except ImportError as exc:
    raise DeviceUnavailable("openvino is not installed: pip install 'qyolo[cpu]'") from exc

log = logging.getLogger(__name__)


def blob_key() -> str:
    """What a blob is compiled for: the OpenVINO version, the CPU, and u8 input."""
    return f"openvino-{ov.get_version()}-{cpu_fingerprint()}-u8"


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


def with_byte_input(network: ov.Model, divisor: float) -> ov.Model:
    """The network with u8 input in place of f32: a quarter of the memory traffic.

    The division is fused into the first kernel.
    """
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(ov.Type.u8)
    division = steps.input().preprocess().convert_element_type(ov.Type.f32)
    if divisor != 1:
        division.scale(divisor)
    return steps.build()


class OpenVinoEngine:
    """Runs an IR, or its blob: the same network, compiled at build time.

    The network is compiled for u8 input, and a second time at the first f32 input.
    """

    def __init__(
        self,
        model: Path,
        blob: Path | None,
        threads: int,
        float_type: FloatType = "f32",
        streams: int = 1,
        divisor: float = 1.0,
    ) -> None:
        self._model = model
        self._options = compile_options(threads, float_type, streams)
        self._streams = streams
        # A blob is compiled for one stream.
        compiled = _import(blob, self._options) if blob and streams == 1 else None
        if compiled is None:
            compiled = _compile(model, self._options, lambda read: with_byte_input(read, divisor))
        self._for_bytes: _Requests | None = _Requests(compiled, streams)
        self._for_floats: _Requests | None = None
        self._compiling = Lock()

    def infer(self, image: Planes | Floats) -> Floats:
        requests = self._for_bytes if image.dtype == np.uint8 else self._requests_for_floats()
        if requests is None:
            raise EngineFailed("the engine is closed")
        return requests.infer(image)

    def close(self) -> None:
        with self._compiling:
            self._for_bytes = self._for_floats = None

    def _requests_for_floats(self) -> "_Requests | None":
        with self._compiling:
            if self._for_floats is None and self._for_bytes is not None:
                compiled = _compile(self._model, self._options, lambda read: read)
                self._for_floats = _Requests(compiled, self._streams)
            return self._for_floats


class _Requests:
    """The infer requests of one compiled network: one for each stream."""

    def __init__(self, compiled: ov.CompiledModel, streams: int) -> None:
        output = compiled.output(0)
        static = output.partial_shape.is_static and output.element_type == ov.Type.f32
        self._shape = tuple(output.shape) if static else None
        self._idle: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def infer(self, image: Planes | Floats) -> Floats:
        request = self._idle.get()
        try:
            if self._shape is None:
                return np.asarray(request.infer([image], share_inputs=True)[0], np.float32)
            # OpenVINO writes into the caller's array: a copy would take as long as the decoding.
            raw = np.empty(self._shape, np.float32)
            request.set_output_tensor(ov.Tensor(raw, shared_memory=True))
            request.infer([image], share_inputs=True, share_outputs=True)
            return raw
        except RuntimeError as exc:
            raise EngineFailed("OpenVINO could not run the model") from exc
        finally:
            self._idle.put(request)


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
