"""The interface of an engine, and the choice of its implementation."""

from pathlib import Path
from typing import Protocol

from service.engines.cpu import usable_threads
from service.errors import EngineFailed
from service.manifest import Variant
from service.vision.detections import Floats
from service.vision.preprocess import Planes


class Engine(Protocol):
    """A loaded model.

    As many threads as it has streams may call `infer` at a time; it releases the GIL meanwhile.
    """

    def infer(self, image: Planes | Floats) -> Floats:
        """u8 or f32[1,3,size,size] -> the raw output of the model, in an array of its own.

        u8 is divided by the engine, f32 is passed to the model unchanged. Raises EngineFailed.
        """

    def close(self) -> None:
        """Free the model; a second call does nothing."""


def load_engine(
    folder: Path, variant: Variant, threads: int = 0, streams: int = 1, divisor: float = 1.0
) -> Engine:
    """Load the engine of one variant.

    `threads` is the total for all streams; 0: as many as this process may use. `streams` is the
    number of images that a CPU infers at a time; a GPU infers one. `divisor` is that of the
    preprocessing.

    Raises EngineFailed when the runtime cannot load the model, DeviceUnavailable when the runtime
    is not installed or the variant was built for another GPU.
    """
    count = threads or usable_threads()
    model = folder / variant.model
    match variant.runtime:
        case "openvino":
            from service.engines.openvino_engine import OpenVinoEngine, blob_key

            compatible = variant.blob_key == blob_key()
            blob = folder / variant.blob if variant.blob and compatible else None
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
