"""ONNX Runtime, for CPUs without OpenVINO and GPUs without TensorRT."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.errors import DeviceUnavailable, EngineFailed
from service.vision.detections import Floats
from service.vision.preprocess import Planes, normalize

try:
    import onnxruntime as ort
except ImportError as exc:
    raise DeviceUnavailable("onnxruntime is not installed: pip install onnxruntime") from exc

LOG_LEVEL: Final = 3  # errors only: its warnings about folded initializers need no action
# Without it, integer kernels saturate on x86 processors that have no int8 dot products.
EXACT_INT8: Final = ("session.x64quantprecision", "1")
CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"


def providers(cuda: bool) -> list[Any]:
    """Execution providers for an InferenceSession; raises DeviceUnavailable.

    TF32 is off: it would round the factors of float32 products, and fp32 is the reference.
    """
    if not cuda:
        return [CPU]
    if CUDA not in ort.get_available_providers():
        raise DeviceUnavailable(
            "this ONNX Runtime has no CUDA: pip uninstall onnxruntime, pip install onnxruntime-gpu"
        )
    with redirect_stdout(io.StringIO()):  # it prints which libraries are missing
        ort.preload_dlls()  # CUDA and cuDNN that pip installed
    return [(CUDA, {"use_tf32": "0"}), CPU]


def require_cuda(session: ort.InferenceSession) -> None:
    """Raise DeviceUnavailable if ONNX Runtime fell back to the CPU, which it does silently."""
    if session.get_providers()[0] != CUDA:
        raise DeviceUnavailable(
            "ONNX Runtime cannot use the GPU: CUDA or cuDNN is missing or too old; "
            "see docs/how-to/gpu.md"
        )


class OnnxRuntimeEngine:
    """Runs an ONNX graph on the CPU or, by CUDA, on a GPU."""

    def __init__(self, model: Path, threads: int, divisor: float = 1.0, cuda: bool = False) -> None:
        chosen = providers(cuda)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = LOG_LEVEL
        options.add_session_config_entry(*EXACT_INT8)
        try:
            session = ort.InferenceSession(model, options, chosen)
        except Exception as exc:  # its exceptions have no common base class
            raise EngineFailed("ONNX Runtime could not load the model") from exc
        if cuda:
            require_cuda(session)
        self._divisor = divisor
        self._input = session.get_inputs()[0].name
        self._session: ort.InferenceSession | None = session

    def infer(self, image: Planes | Floats) -> Floats:
        if self._session is None:
            raise EngineFailed("the engine is closed")
        tensor = normalize(image, self._divisor)
        try:
            (raw, *_) = self._session.run(None, {self._input: tensor})
        except Exception as exc:
            raise EngineFailed("ONNX Runtime could not run the model") from exc
        return np.asarray(raw, np.float32)

    def close(self) -> None:
        self._session = None
