"""Load a runtime's builder; the choice of the runtime is elsewhere, as it must not import onnx."""

from quantizer.compile.builder import NO_LIMITS, Builder, Resources
from service.manifest import Runtime
from service.progress import ReportProgress


def load_builder(
    runtime: Runtime,
    threads: int,
    resources: Resources = NO_LIMITS,
    progress: ReportProgress = lambda _: None,
    targets: tuple[str, ...] = (),
) -> Builder:
    """The builder of a runtime that is installed; raises DeviceUnavailable.

    `targets`: the compute capabilities of GPUs elsewhere, for TensorRT for RTX.
    """
    match runtime:
        case "openvino":
            from quantizer.compile.openvino_builder import OpenVinoBuilder

            return OpenVinoBuilder(threads)
        case "onnxruntime" | "onnxruntime-cuda":
            from quantizer.compile.onnxruntime_builder import OnnxRuntimeBuilder

            return OnnxRuntimeBuilder(threads, cuda=runtime == "onnxruntime-cuda")
        case "tensorrt" | "tensorrt-rtx":
            from quantizer.compile.tensorrt_builder import TensorRtBuilder
            from service.engines import tensorrt_library

            library = tensorrt_library.load_library(runtime)
            return TensorRtBuilder(library, targets, resources, progress)
