"""Load a runtime's builder; the choice of the runtime is elsewhere, as it must not import onnx."""

from quantizer.compile.builder import NO_LIMITS, Builder, Resources
from service.manifest import Runtime
from service.progress import ReportProgress


def load_builder(
    runtime: Runtime,
    threads: int,
    resources: Resources = NO_LIMITS,
    progress: ReportProgress = lambda _: None,
) -> Builder:
    """The builder of a runtime that is installed; raises DeviceUnavailable."""
    match runtime:
        case "openvino":
            from quantizer.compile.openvino_builder import OpenVinoBuilder

            return OpenVinoBuilder(threads)
        case "onnxruntime" | "onnxruntime-cuda":
            from quantizer.compile.onnxruntime_builder import OnnxRuntimeBuilder

            return OnnxRuntimeBuilder(threads, cuda=runtime == "onnxruntime-cuda")
        case "tensorrt":
            from quantizer.compile.tensorrt_builder import TensorRtBuilder

            return TensorRtBuilder(resources, progress)
