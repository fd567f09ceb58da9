"""ONNX Runtime, for CPUs without OpenVINO and GPUs without TensorRT."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np

from service.errors import DeviceUnavailable, EngineFailed
from service.vision.detections import Floats, Outputs, as_output
from service.vision.preprocess import PREPROCESS, Canvas, Preprocess, tensor_of

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
    """Runs an ONNX graph on the CPU or, by CUDA, on a GPU.

    `raw` is the whole graph, which is loaded when `infer_tensor` is first called; without it
    `model` is that graph.
    """

    def __init__(
        self,
        model: Path,
        raw: Path | None,
        threads: int,
        preprocess: Preprocess = PREPROCESS["yolo"],
        cuda: bool = False,
    ) -> None:
        self._raw = raw
        self._threads = threads
        self._preprocess = preprocess
        self._cuda = cuda
        self._loading = Lock()
        self._served: ort.InferenceSession | None = self._load(model)
        self._whole = self._served if raw is None else None

    def infer(self, image: Canvas) -> Outputs:
        if self._raw is None:
            return (self.infer_tensor(tensor_of(image, self._preprocess)),)
        return _run(self._served, image)

    def infer_tensor(self, tensor: Floats) -> Floats:
        with self._loading:
            if self._whole is None and self._served is not None and self._raw is not None:
                self._whole = self._load(self._raw)
        return np.asarray(_run(self._whole, tensor)[0], np.float32)

    def close(self) -> None:
        with self._loading:
            self._served = self._whole = None

    def _load(self, model: Path) -> ort.InferenceSession:
        chosen = providers(self._cuda)
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = LOG_LEVEL
        options.add_session_config_entry(*EXACT_INT8)
        try:
            session = ort.InferenceSession(model, options, chosen)
        except Exception as exc:  # its exceptions have no common base class
            raise EngineFailed("ONNX Runtime could not load the model") from exc
        if self._cuda:
            require_cuda(session)
        return session


def _run(session: ort.InferenceSession | None, image: Canvas | Floats) -> Outputs:
    if session is None:
        raise EngineFailed("the engine is closed")
    try:
        outputs = session.run(None, {session.get_inputs()[0].name: image})
    except Exception as exc:
        raise EngineFailed("ONNX Runtime could not run the model") from exc
    return tuple(map(as_output, outputs))
