"""The interface of an engine, and the choice of its implementation."""

from pathlib import Path
from typing import Protocol

from service.engines.cpu import usable_threads
from service.manifest import LOCAL, Variant
from service.vision.detections import Floats, Outputs
from service.vision.preprocess import PREPROCESS, Canvas, Preprocess


class Engine(Protocol):
    """A loaded model.

    As many threads as it has streams may call `infer` at a time; it releases the GIL meanwhile.
    """

    def infer(self, image: Canvas) -> Outputs:
        """u8[1,height,width,3], RGB -> the outputs of the served graph, in arrays of their own.

        They are the manifest's maps where the variant has them, f32 or u8, otherwise the raw
        output, f32. Raises EngineFailed.
        """

    def infer_tensor(self, tensor: Floats) -> Floats:
        """f32[1,3,height,width] -> the raw output, as the graph's exporter defined both.

        The first call may take seconds: it loads or compiles the whole graph. Raises EngineFailed.
        """

    def close(self) -> None:
        """Free the model; a second call does nothing."""


def load_engine(
    folder: Path,
    variant: Variant,
    threads: int = 0,
    streams: int = 1,
    preprocess: Preprocess = PREPROCESS["yolo"],
) -> Engine:
    """Load the engine of one variant.

    `threads` is the total for all streams; 0: as many as this process may use. `streams` is the
    number of images that a CPU infers at a time, or another device of OpenVINO's; an NVIDIA GPU
    infers one. `preprocess` is applied by engines whose model reads floats.

    Raises EngineFailed when the runtime cannot load the model, DeviceUnavailable when the runtime
    is not installed or the variant was built for another GPU.
    """
    count = threads or usable_threads()
    model = folder / variant.model
    raw = None if variant.raw is None else folder / variant.raw
    match variant.runtime:
        case "openvino":
            from service.engines.openvino_engine import CPU, OpenVinoEngine, Target, blob_key

            device = variant.device or CPU
            compatible = variant.blob_key == blob_key(device)
            blob = folder / variant.blob if variant.blob and compatible else None
            target = Target(device, folder / LOCAL / "openvino" / model.parent.name)
            return OpenVinoEngine(
                model, raw, blob, count, variant.float_type, streams, preprocess, target
            )
        case "onnxruntime":
            from service.engines.onnxruntime_engine import OnnxRuntimeEngine

            return OnnxRuntimeEngine(model, raw, max(1, count // streams), preprocess)
        case "onnxruntime-cuda":
            from service.engines.onnxruntime_engine import OnnxRuntimeEngine

            return OnnxRuntimeEngine(model, raw, count, preprocess, cuda=True)
        case "tensorrt" | "tensorrt-rtx":
            from service.engines.tensorrt_engine import TensorRtEngine

            return TensorRtEngine(folder, variant, preprocess)
