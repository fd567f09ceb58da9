"""Choose the runtime that compiles and serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from quantizer.compile.hardware import Hardware, Installed, Missing
from quantizer.config import Device
from quantizer.errors import BadOption
from service.engines.gpu import RTX_TARGETS, Gpu, NoGpu
from service.engines.intel import PLACES
from service.manifest import DEVICE_OF, Runtime

# The fastest first, with their common names.
NAMES: Final[Mapping[Runtime, str]] = {
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT for RTX",
    "onnxruntime-cuda": "ONNX Runtime on CUDA",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
}
TENSORRT_OLDEST: Final = (7, 5)  # compute capability: Turing, the first with int8 tensor cores
LIMITS: Final[Mapping[Runtime, str]] = {
    "tensorrt": "needs compute capability 7.5 or more",
    "tensorrt-rtx": f"compiles for {', '.join(RTX_TARGETS)}",
}


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """A runtime, the reason for it, and what is missing for a faster one."""

    runtime: Runtime
    reason: str
    better: tuple[str, ...]


def choose_runtime(
    device: Device, runtime: Runtime | None, hardware: Hardware, targets: tuple[str, ...] = ()
) -> RuntimeChoice:
    """The fastest runtime that works here on `device`, or `runtime` if it is given.

    For `targets`, GPUs elsewhere, it is the one that compiles without a GPU. Raises BadOption where
    none works: there is no silent fallback to another device or runtime.
    """
    if targets:
        return _choose_elsewhere(device, runtime, hardware, targets)
    if device in PLACES:
        return _choose_for_intel(device, runtime, hardware)
    if runtime is not None and device not in ("auto", DEVICE_OF[runtime]):
        raise BadOption(
            "runtime",
            f"{runtime} runs on the {DEVICE_OF[runtime].upper()}, not on device {device}: leave "
            "out one of them",
        )
    obstacles: dict[Runtime, str] = {}
    for each in NAMES:
        if runtime in (None, each) and device in ("auto", DEVICE_OF[each]):
            obstacle = _obstacle(each, hardware)
            if obstacle is None:
                reason = f"{NAMES[each]}: {_reason(each, device, runtime, hardware)}"
                better = _better(obstacles, hardware) + _untried(device, each, hardware)
                return RuntimeChoice(each, reason, better)
            obstacles[each] = obstacle
    reasons = dict.fromkeys(obstacles.values())
    field, value = ("device", device) if runtime is None else ("runtime", runtime)
    raise BadOption(field, f"{value}: {'; '.join(reasons)}")


def _choose_for_intel(device: str, runtime: Runtime | None, hardware: Hardware) -> RuntimeChoice:
    """OpenVINO, if this process may open the device; raises BadOption."""
    found, state = hardware.intel[device], hardware.runtimes["openvino"]
    if runtime not in (None, "openvino"):
        raise BadOption("runtime", f"{runtime} does not run on {device}: leave out one of them")
    if isinstance(state, Missing):
        raise BadOption("device", f"{device}: {NAMES['openvino']} {state.reason}")
    if not found.file:
        raise BadOption("device", f"{device}: {found.reason}")
    reason = f"{found.file} is here; its engines are tried beside the processor's"
    return RuntimeChoice("openvino", f"{NAMES['openvino']}: {reason}", ())


def _untried(device: Device, chosen: Runtime, hardware: Hardware) -> tuple[str, ...]:
    """The Intel devices that `auto` leaves out, because none of them has been tested."""
    if device != "auto" or chosen != "openvino":
        return ()
    return tuple(
        f"an {PLACES[kind].title} is here, and --device {kind} tries it beside the processor"
        for kind, found in hardware.intel.items()
        if found.file
    )


def _choose_elsewhere(
    device: Device, runtime: Runtime | None, hardware: Hardware, targets: tuple[str, ...]
) -> RuntimeChoice:
    """The runtime that compiles for GPUs that are not here; raises BadOption."""
    chosen: Runtime = "tensorrt-rtx"
    names, state = " and ".join(targets), hardware.runtimes[chosen]
    if device not in ("auto", "gpu"):
        raise BadOption("target", f"{names}: these are NVIDIA GPUs; leave out --device {device}")
    if runtime not in (None, chosen):
        raise BadOption("target", f"{names}: {runtime} compiles only for the machine it runs on")
    if isinstance(state, Missing):
        raise BadOption("target", f"{names}: {NAMES[chosen]} {state.reason}")
    return RuntimeChoice(chosen, f"{NAMES[chosen]}: it compiles for {names} without a GPU", ())


def _obstacle(runtime: Runtime, hardware: Hardware) -> str | None:
    """Why the runtime does not work here, and the remedy; None where it works."""
    gpu, state = hardware.gpu, hardware.runtimes[runtime]
    if DEVICE_OF[runtime] == "gpu":
        if isinstance(gpu, NoGpu):
            return gpu.reason
        if not _supports(runtime, gpu):
            return f"{NAMES[runtime]} {LIMITS[runtime]}, but {_described(gpu)} is here"
    return None if isinstance(state, Installed) else f"{NAMES[runtime]} {state.reason}"


def _supports(runtime: Runtime, gpu: Gpu) -> bool:
    if runtime == "tensorrt":
        major, minor = gpu.compute_capability.split(".")
        return (int(major), int(minor)) >= TENSORRT_OLDEST
    return runtime != "tensorrt-rtx" or gpu.target in RTX_TARGETS


def _described(gpu: Gpu) -> str:
    return f"{gpu.name} (compute capability {gpu.compute_capability})"


def _reason(chosen: Runtime, device: Device, runtime: Runtime | None, hardware: Hardware) -> str:
    gpu, on_gpu = hardware.gpu, DEVICE_OF[chosen] == "gpu"
    reasons = []
    if runtime is not None:
        reasons.append(f"runtime {runtime} was requested")
    elif device != "auto":
        reasons.append(f"the fastest on device {device}")
    elif isinstance(gpu, NoGpu):
        reasons.append(f"no GPU can be used ({gpu.problem})")
    elif not on_gpu:
        reasons.append(f"no runtime works on {_described(gpu)}")
    if isinstance(gpu, Gpu) and on_gpu:
        reasons.append(f"{_described(gpu)} is here")
    if not on_gpu:
        features = " and ".join(hardware.cpu.int8_features)
        reasons.append(f"the processor has {features or 'no int8 dot products'}")
    return ", and ".join(reasons)


def _better(obstacles: Mapping[Runtime, str], hardware: Hardware) -> tuple[str, ...]:
    """For each device: why the fastest runtime that this hardware allows was not chosen.

    Of a GPU also why not TensorRT for RTX, which is easier to install than TensorRT.
    """
    gpu = hardware.gpu
    lines: dict[str, str] = {}  # with the device
    for each, obstacle in obstacles.items():
        if isinstance(gpu, Gpu) and not _supports(each, gpu):
            continue
        if each != "tensorrt-rtx" and DEVICE_OF[each] in lines.values():
            continue
        if DEVICE_OF[each] == "cpu":
            line = obstacle
        elif isinstance(gpu, NoGpu):
            line = f"to use a GPU, {gpu.remedy}"
        else:
            line = f"{gpu.name} is here, but {obstacle}"
        lines[line] = DEVICE_OF[each]
    return tuple(lines)
