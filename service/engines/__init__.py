"""The contract of an engine, and the one place that chooses an implementation."""

from pathlib import Path
from typing import Protocol

from service.engines.cpu import usable_threads
from service.errors import EngineFailed
from service.manifest import Variant
from service.vision.detections import Floats
from service.vision.preprocess import Planes


class Engine(Protocol):
    """A loaded model. As many calls at a time as it has streams, which is one unless more were
    asked for; `infer` releases the GIL while it computes."""

    def infer(self, image: Planes | Floats) -> Floats:
        """[1,3,size,size] -> the model's raw output, owned by the caller.

        u8 is what an image holds, f32 what the model reads: the engine divides bytes itself. Raises
        EngineFailed.
        """

    def close(self) -> None:
        """Free the model; a second call does nothing."""


def load_engine(
    folder: Path, variant: Variant, threads: int = 0, streams: int = 1, divisor: float = 1.0
) -> Engine:
    """The engine of one variant; `threads` 0 takes what this process may use.

    On a processor the threads are shared out among `streams` images at a time; a GPU has one. The
    bytes of an image are divided by `divisor`, which is that of the model's preprocessing.

    Raises EngineFailed when the runtime cannot load it, DeviceUnavailable when it is not installed
    or the GPU that it was built for is not here.
    """
    count = threads or usable_threads()
    model = folder / variant.model
    match variant.runtime:
        case "openvino":
            from service.engines.openvino_engine import OpenVinoEngine, blob_key

            fits = variant.blob is not None and variant.blob_key == blob_key()
            blob = folder / variant.blob if fits and variant.blob else None
            return OpenVinoEngine(model, blob, count, variant.float_type, streams, divisor)
        case "onnxruntime":
            from service.engines.onnxruntime_engine import OnnxRuntimeEngine

            return OnnxRuntimeEngine(model, max(1, count // streams), divisor)
        case "onnxruntime-cuda":
            from service.engines.onnxruntime_engine import OnnxRuntimeEngine

            return OnnxRuntimeEngine(model, count, divisor, cuda=True)
        case "tensorrt":
            from service.engines.tensorrt_engine import TensorRtEngine

            if variant.blob is None:
                raise EngineFailed("the variant has no plan")
            return TensorRtEngine(folder / variant.blob, variant.blob_key, divisor)
