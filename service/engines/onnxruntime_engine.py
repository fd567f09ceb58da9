"""ONNX Runtime on the CPU, for boxes without OpenVINO."""

from pathlib import Path

import numpy as np

from service.detections import Floats
from service.errors import DeviceUnavailable, EngineFailed

try:
    import onnxruntime as ort
except ImportError as exc:
    raise DeviceUnavailable("onnxruntime is not installed: pip install onnxruntime") from exc

QUIET = 3  # errors only: warnings about folded initializers are no news to a user


class OnnxRuntimeEngine:
    """Runs an ONNX graph, quantized or not."""

    def __init__(self, model: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = QUIET
        try:
            session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
        except Exception as exc:  # its exceptions share no base of their own
            raise EngineFailed("ONNX Runtime could not load the model") from exc
        self._input = session.get_inputs()[0].name
        self._session: ort.InferenceSession | None = session

    def infer(self, tensor: Floats) -> Floats:
        if self._session is None:
            raise EngineFailed("the engine is closed")
        try:
            (raw, *_) = self._session.run(None, {self._input: tensor})
        except Exception as exc:
            raise EngineFailed("ONNX Runtime could not run the model") from exc
        return np.asarray(raw, np.float32)

    def close(self) -> None:
        self._session = None
