"""OpenVINO on the CPU."""

import logging
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from service.cpu import cpu_fingerprint
from service.detections import Floats
from service.errors import DeviceUnavailable, EngineFailed
from service.manifest import FloatType

try:
    import openvino as ov
except ImportError as exc:
    raise DeviceUnavailable("openvino is not installed: pip install 'qyolo[cpu]'") from exc

log = logging.getLogger(__name__)


def blob_key() -> str:
    """A blob holds code for one OpenVINO version and one kind of processor."""
    return f"openvino-{ov.get_version()}-{cpu_fingerprint()}"


def compile_options(
    threads: int, float_type: FloatType = "f32", streams: int = 1
) -> dict[str, object]:
    """One request at a time, as fast as it goes, or as many as there are streams, with as much work
    done as goes; what is float in the graph in `float_type`.

    Without the precision hint OpenVINO runs a float graph in bfloat16 where the processor has it,
    and the fp32 variant would not be fp32.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": streams,
        "INFERENCE_PRECISION_HINT": float_type,
        "INFERENCE_NUM_THREADS": threads,
    }


class OpenVinoEngine:
    """Runs an IR, from its compiled blob where one fits this machine."""

    def __init__(
        self,
        model: Path,
        blob: Path | None,
        threads: int,
        float_type: FloatType = "f32",
        streams: int = 1,
    ) -> None:
        # The blob was compiled for one stream.
        blob = blob if streams == 1 else None
        compiled = _compile(model, blob, compile_options(threads, float_type, streams))
        self._idle: SimpleQueue[ov.InferRequest] | None = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def infer(self, tensor: Floats) -> Floats:
        idle = self._idle
        if idle is None:
            raise EngineFailed("the engine is closed")
        request = idle.get()
        try:
            result = request.infer([tensor], share_inputs=True)
            return np.asarray(result[0], np.float32)
        except RuntimeError as exc:
            raise EngineFailed("OpenVINO could not run the model") from exc
        finally:
            idle.put(request)

    def close(self) -> None:
        self._idle = None


def _compile(model: Path, blob: Path | None, options: dict[str, object]) -> ov.CompiledModel:
    core = ov.Core()
    if blob is not None:
        try:
            return core.import_model(blob.read_bytes(), "CPU", options)
        except RuntimeError:
            log.warning("the compiled blob cannot be loaded; compiling the model instead")
    try:
        return core.compile_model(core.read_model(model), "CPU", options)
    except RuntimeError as exc:
        raise EngineFailed("OpenVINO could not load the model") from exc
