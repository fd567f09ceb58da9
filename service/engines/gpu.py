"""The NVIDIA GPU that this process may use, as its driver describes it (NVML, no CUDA needed)."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pynvml

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
CONTAINER: Final = "a container needs the NVIDIA container toolkit and docker run --gpus all"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or the slice of one that MIG gives."""

    name: str
    compute_capability: str  # as NVIDIA writes it, like 8.9
    memory_mib: int
    driver: str
    index: int  # among the GPUs of the host in PCI order, hidden ones included

    @property
    def fingerprint(self) -> str:
        """What a compiled engine depends on: NVIDIA-GeForce-RTX-4090-sm89."""
        name = re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-")
        return f"{name}-sm{self.compute_capability.replace('.', '')}"


@dataclass(frozen=True, slots=True)
class NoGpu:
    """Why there is none, and what to do about that."""

    problem: str
    remedy: str = ""

    @property
    def reason(self) -> str:
        """Both on one line."""
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem


KNOWN: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: NoGpu(
        "no NVIDIA driver here", f"install the driver; {CONTAINER}"
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: NoGpu(
        "the NVIDIA driver is not loaded", f"load it with modprobe nvidia; {CONTAINER}"
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: NoGpu(
        "the NVIDIA driver's library and its kernel module are of different versions",
        "reboot, which loads the module that the last update installed",
    ),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: NoGpu(
        "the NVIDIA driver is too old", "install a current one"
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: NoGpu(
        "this user may not use the GPU", "allow reading and writing /dev/nvidia*"
    ),
    pynvml.NVML_ERROR_GPU_IS_LOST: NoGpu("the GPU does not answer any more", "reboot"),
}


def find_gpu() -> Gpu | NoGpu:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves; never raises."""
    # NVML counts in PCI order, CUDA the fastest first unless CUDA_DEVICE_ORDER says otherwise: an
    # index means the same to both but where unlike GPUs share a box.
    wanted = os.environ.get(VISIBLE, "0").split(",")[0].strip()
    if wanted in ("", "-1"):
        return NoGpu(f"{VISIBLE} hides every GPU", f"unset {VISIBLE}")
    try:
        with _nvml():
            handle = _handle(wanted)
            return handle if isinstance(handle, NoGpu) else _described(handle, wanted)
    except pynvml.NVMLError as exc:
        unknown = NoGpu(f"the NVIDIA driver fails ({exc})", "see what nvidia-smi says")
        return KNOWN.get(exc.value, unknown)


@contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _handle(wanted: str) -> Any:
    """NVML's handle of what CUDA_VISIBLE_DEVICES names first, or a NoGpu."""
    count = pynvml.nvmlDeviceGetCount()
    if count == 0:
        return NoGpu("the NVIDIA driver sees no GPU", f"see what nvidia-smi says; {CONTAINER}")
    absent = NoGpu(
        f"{VISIBLE} names {wanted}, which is not here",
        f"name one of 0 to {count - 1}, or a UUID in full as nvidia-smi -L shows it",
    )
    if wanted.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(wanted)) if int(wanted) < count else absent
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(wanted)
    except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
        return absent


def _described(handle: Any, wanted: str) -> Gpu:
    """A slice has its own name and memory; the rest is asked of the GPU that it is cut from."""
    whole = handle
    if wanted.startswith("MIG-"):
        whole = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(whole)
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        compute_capability=f"{major}.{minor}",
        memory_mib=pynvml.nvmlDeviceGetMemoryInfo(handle).total >> 20,
        driver=pynvml.nvmlSystemGetDriverVersion(),
        index=pynvml.nvmlDeviceGetIndex(whole),
    )
