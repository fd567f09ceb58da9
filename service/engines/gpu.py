"""The NVIDIA GPU that this process may use, read from the driver (NVML; CUDA is not needed)."""

import os
import re
from dataclasses import dataclass
from typing import Any, Final

import pynvml

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
CONTAINER: Final = "a container needs the NVIDIA container toolkit and docker run --gpus all"


# The compute capabilities for which TensorRT for RTX 1.7 compiles (its enum ComputeCapability).
RTX_TARGETS: Final = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
FP8_TARGETS: Final = frozenset({"sm89", "sm120", "sm121"})  # for others it refuses FP8


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or a MIG slice of one."""

    name: str
    compute_capability: str  # such as 8.9
    memory_mib: int
    driver: str
    index: int  # in PCI order among all GPUs of the host, hidden ones included

    @property
    def target(self) -> str:
        """The compute capability as compilers write it: sm89."""
        return f"sm{self.compute_capability.replace('.', '')}"

    @property
    def fingerprint(self) -> str:
        """Name and architecture, on which compiled plans depend: NVIDIA-GeForce-RTX-4090-sm89."""
        name = re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-")
        return f"{name}-{self.target}"


@dataclass(frozen=True, slots=True)
class NoGpu:
    """Why no GPU can be used, and what to do about it."""

    problem: str
    remedy: str = ""

    @property
    def reason(self) -> str:
        """Both on one line."""
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem


NVML_ERRORS: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: NoGpu(
        "no NVIDIA driver here", f"install the driver; {CONTAINER}"
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: NoGpu(
        "the NVIDIA driver is not loaded", f"load it with modprobe nvidia; {CONTAINER}"
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: NoGpu(
        "the NVIDIA driver's library and its kernel module have different versions",
        "reboot to load the module of the last update",
    ),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: NoGpu(
        "the NVIDIA driver is too old", "install a current one"
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: NoGpu(
        "this user may not use the GPU", "allow reading and writing /dev/nvidia*"
    ),
    pynvml.NVML_ERROR_GPU_IS_LOST: NoGpu("the GPU does not respond", "reboot"),
}


def find_gpu() -> Gpu | NoGpu:
    """The first GPU that CUDA_VISIBLE_DEVICES allows, or why there is none; never raises."""
    # NVML numbers GPUs in PCI order, CUDA puts the fastest first unless CUDA_DEVICE_ORDER is set:
    # the numbers differ only where a machine has different GPUs.
    visible = os.environ.get(VISIBLE, "0").split(",")[0].strip()
    if visible in ("", "-1"):
        return NoGpu(f"{VISIBLE} hides every GPU", f"unset {VISIBLE}")
    try:
        pynvml.nvmlInit()
        try:
            handle = _handle(visible)
            return handle if isinstance(handle, NoGpu) else _describe(handle, visible)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as exc:
        unknown = NoGpu(f"the NVIDIA driver fails ({exc})", "run nvidia-smi to see why")
        return NVML_ERRORS.get(exc.value, unknown)


def _handle(visible: str) -> Any:
    """NVML's handle of the first GPU in CUDA_VISIBLE_DEVICES, or a NoGpu."""
    count = pynvml.nvmlDeviceGetCount()
    if count == 0:
        return NoGpu("the NVIDIA driver sees no GPU", f"run nvidia-smi to see why; {CONTAINER}")
    absent = NoGpu(
        f"{VISIBLE} names {visible}, but there is no such GPU",
        f"name one of 0 to {count - 1}, or a full UUID as shown by nvidia-smi -L",
    )
    if visible.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(visible)) if int(visible) < count else absent
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(visible)
    except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
        return absent


def _describe(handle: Any, visible: str) -> Gpu:
    """A MIG slice has its own name and memory; the other properties are those of its GPU."""
    gpu = handle
    if visible.startswith("MIG-"):
        gpu = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(gpu)
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        compute_capability=f"{major}.{minor}",
        memory_mib=pynvml.nvmlDeviceGetMemoryInfo(handle).total >> 20,
        driver=pynvml.nvmlSystemGetDriverVersion(),
        index=pynvml.nvmlDeviceGetIndex(gpu),
    )
