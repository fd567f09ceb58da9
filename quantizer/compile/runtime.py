"""Which runtime compiles and serves, of those that work here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from quantizer.compile.hardware import Hardware, Installed
from quantizer.config import Device
from quantizer.errors import BadOption
from service.engines.gpu import Gpu, NoGpu
from service.manifest import DEVICE_OF, Runtime

# The fastest first, and what people call it.
NAMES: Final[Mapping[Runtime, str]] = {
    "tensorrt": "TensorRT",
    "onnxruntime-cuda": "ONNX Runtime on CUDA",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
}
TENSORRT_OLDEST: Final = (7, 5)  # compute capability: Turing, the first that multiplies int8


@dataclass(frozen=True, slots=True)
class Choice:
    """A runtime, why it is this one, and what is missing for a better one."""

    runtime: Runtime
    reason: str
    better: tuple[str, ...]


def choose_runtime(device: Device, runtime: Runtime | None, hardware: Hardware) -> Choice:
    """The fastest that works on this box, within what is asked for; raises BadOption.

    A choice that cannot work is an error, never a silent fallback.
    """
    if runtime is not None and device not in ("auto", DEVICE_OF[runtime]):
        raise BadOption(
            "runtime",
            f"{runtime} runs on the {DEVICE_OF[runtime].upper()}, not on device {device}: leave "
            "out one of them",
        )
    hindrances = {
        each: _hindrance(each, hardware)
        for each in NAMES
        if runtime in (None, each) and device in ("auto", DEVICE_OF[each])
    }
    for chosen, hindrance in hindrances.items():
        if hindrance is None:
            reason = f"{NAMES[chosen]}: {_reason(chosen, device, runtime, hardware)}"
            return Choice(chosen, reason, _better(chosen, hindrances, hardware))
    reasons = dict.fromkeys(reason for reason in hindrances.values() if reason)
    field, value = ("device", device) if runtime is None else ("runtime", runtime)
    raise BadOption(field, f"{value}: {'; '.join(reasons)}")


def _hindrance(runtime: Runtime, hardware: Hardware) -> str | None:
    """What keeps the runtime from working here, and what to do about it."""
    gpu, state = hardware.gpu, hardware.runtimes[runtime]
    if DEVICE_OF[runtime] == "gpu":
        if isinstance(gpu, NoGpu):
            return gpu.reason
        if runtime == "tensorrt" and _too_old(gpu):
            return f"TensorRT needs compute capability 7.5 or more, {_described(gpu)} is older"
    return None if isinstance(state, Installed) else f"{NAMES[runtime]} {state.reason}"


def _too_old(gpu: Gpu) -> bool:
    major, minor = gpu.compute_capability.split(".")
    return (int(major), int(minor)) < TENSORRT_OLDEST


def _described(gpu: Gpu) -> str:
    return f"{gpu.name} (compute capability {gpu.compute_capability})"


def _reason(chosen: Runtime, device: Device, runtime: Runtime | None, hardware: Hardware) -> str:
    gpu, on_gpu = hardware.gpu, DEVICE_OF[chosen] == "gpu"
    reasons = []
    if runtime is not None:
        reasons.append(f"runtime {runtime} was asked for")
    elif device != "auto":
        reasons.append(f"the best for device {device}")
    elif isinstance(gpu, NoGpu):
        reasons.append(f"no GPU can be used ({gpu.problem})")
    elif not on_gpu:
        reasons.append(f"no runtime works on {_described(gpu)}")
    if isinstance(gpu, Gpu) and on_gpu:
        reasons.append(f"{_described(gpu)} is here")
    if not on_gpu:
        features = " and ".join(hardware.cpu.int8_features)
        reasons.append(f"the processor has {features or 'no instructions for sums of int8'}")
    return ", and ".join(reasons)


def _better(
    chosen: Runtime, hindrances: Mapping[Runtime, str | None], hardware: Hardware
) -> tuple[str, ...]:
    """For each device, what keeps away the fastest that could be had there, if that is better."""
    gpu = hardware.gpu
    lines: dict[str, str] = {}
    for each, hindrance in hindrances.items():
        if each == chosen:
            break
        if hindrance is None or (each == "tensorrt" and isinstance(gpu, Gpu) and _too_old(gpu)):
            continue
        if DEVICE_OF[each] == "cpu":
            line = hindrance
        elif isinstance(gpu, NoGpu):
            line = f"to use a GPU, {gpu.remedy}"
        else:
            line = f"{gpu.name} is here, but {hindrance}"
        lines.setdefault(DEVICE_OF[each], line)
    return tuple(lines.values())
