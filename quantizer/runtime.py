"""Which runtime compiles and serves, of those that are installed."""

from importlib.util import find_spec

from quantizer.errors import BadOption
from quantizer.recipe import Device
from service.manifest import Runtime


def choose_runtime(device: Device, runtime: Runtime | None) -> Runtime:
    """OpenVINO on a CPU, ONNX Runtime where it is not installed; raises BadOption.

    A choice that cannot work is an error, never a silent fallback.
    """
    if device == "gpu":
        raise BadOption("--device gpu: this version builds for CPUs only; use --device cpu")
    if runtime is None:
        return "openvino" if find_spec("openvino") else "onnxruntime"
    if find_spec(runtime) is None:
        raise BadOption(f"--runtime {runtime} is not installed: pip install {runtime}")
    return runtime
