"""The hardware and the runtimes of this machine."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from service.engines.cpu import Cpu, memory_limit_mib, read_cpu, usable_threads
from service.engines.gpu import Gpu, NoGpu, find_gpu
from service.engines.intel import OPENVINO_NAMES, IntelDevice, find_intel
from service.manifest import Runtime

LOAD_S: Final = 120.0  # a runtime's libraries have a gigabyte, and the disk may be cold
CUDA_LIBRARY: Final = "libonnxruntime_providers_cuda.so"

# Whether these packages work shows only when their libraries are loaded.
TENSORRT: Final = """
import cuda.bindings.runtime, {module} as tensorrt
print(tensorrt.__version__)
"""
ONNXRUNTIME_CUDA: Final = """
import numpy, onnxruntime
onnxruntime.preload_dlls()
onnxruntime.OrtValue.ortvalue_from_numpy(numpy.zeros(1, numpy.float32), "cuda", 0)
print(onnxruntime.__version__)
"""
OPENVINO_DEVICES: Final = """
import dataclasses, json
from quantizer.compile.openvino_devices import list_devices
print(json.dumps([dataclasses.asdict(each) for each in list_devices()]))
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A runtime that works, as far as that is known without a model."""

    version: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A runtime that does not work; `reason` follows its name: "is not installed: pip ..."."""

    reason: str


RuntimeState = Installed | Missing


@dataclass(frozen=True, slots=True)
class OpenVinoDevice:
    """A device that OpenVINO finds; what it does not tell is empty."""

    name: str  # CPU, GPU, GPU.1, NPU
    full_name: str
    architecture: str
    driver: str
    precisions: tuple[str, ...]  # FP32, BF16, FP16, INT8


@dataclass(frozen=True, slots=True)
class Hardware:
    """The hardware and the runtimes of a machine that a build depends on."""

    cpu: Cpu
    threads: int  # that this process may use
    cores: int  # of the whole machine
    memory_limit_mib: int | None
    gpu: Gpu | NoGpu
    runtimes: Mapping[Runtime, RuntimeState]
    intel: Mapping[str, IntelDevice]  # by the value of --device


@cache
def detect() -> Hardware:
    """This machine, detected once in a process."""
    return Hardware(
        cpu=read_cpu(),
        threads=usable_threads(),
        cores=os.cpu_count() or 1,
        memory_limit_mib=memory_limit_mib(),
        gpu=find_gpu(),
        runtimes={
            "tensorrt": _tensorrt("tensorrt", "'qyolo[tensorrt]'"),
            "tensorrt-rtx": _tensorrt("tensorrt_rtx_bindings", "'qyolo[gpu]'"),
            "onnxruntime-cuda": _onnxruntime_cuda(),
            "openvino": _package("openvino", ("openvino",), "'qyolo[cpu]'"),
            "onnxruntime": _package("onnxruntime", ("onnxruntime", "onnxruntime-gpu")),
        },
        intel={kind: find_intel(kind) for kind in OPENVINO_NAMES},
    )


@cache
def openvino_devices() -> tuple[OpenVinoDevice, ...] | Missing:
    """What OpenVINO finds here; looking loads the drivers of GPUs and NPUs."""
    printed = _run(OPENVINO_DEVICES)
    if isinstance(printed, Missing):
        return printed
    return tuple(
        OpenVinoDevice(**fields | {"precisions": tuple(fields["precisions"])})
        for fields in json.loads(printed)
    )


def _tensorrt(module: str, install: str) -> RuntimeState:
    if not _can_import(module):
        return Missing(f"is not installed: pip install {install}")
    if not _can_import("cuda.bindings"):
        return Missing(f"needs cuda-bindings, which is not installed: pip install {install}")
    return _load(TENSORRT.format(module=module))


def _onnxruntime_cuda() -> RuntimeState:
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return Missing("is not installed: pip install onnxruntime-gpu")
    if not (Path(spec.origin).parent / "capi" / CUDA_LIBRARY).exists():
        return Missing(
            "is not installed, only the one without CUDA: pip uninstall onnxruntime, "
            "pip install onnxruntime-gpu"
        )
    return _load(ONNXRUNTIME_CUDA)


def _package(module: str, distributions: tuple[str, ...], install: str = "") -> RuntimeState:
    """A runtime whose package contains all its libraries, so that finding it is enough."""
    if not _can_import(module):
        return Missing(f"is not installed: pip install {install or module}")
    for distribution in distributions:
        try:
            return Installed(version(distribution))
        except PackageNotFoundError:
            continue
    return Installed("of an unknown version")


def _can_import(module: str) -> bool:
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # its parent package is missing
        return False
    return spec is not None and spec.origin is not None  # a folder of type stubs has none


def _load(code: str) -> RuntimeState:
    """Run the code, which prints the runtime's version."""
    printed = _run(code)
    return printed if isinstance(printed, Missing) else Installed(printed.split()[-1])


def _run(code: str) -> str | Missing:
    """What the code prints.

    It runs in a process of its own: a library that does not fit may crash its process, and one that
    fits must not stay loaded in ours.
    """
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LOAD_S
        )
    except subprocess.TimeoutExpired:
        return Missing(f"does not load within {LOAD_S:.0f} s")
    if done.returncode == 0:
        return done.stdout
    return Missing(f"does not load: {_reason(done.stderr) or f'exit code {done.returncode}'}")


def _reason(stderr: str) -> str:
    """The message of the dynamic loader, where ONNX Runtime prints it; else the exception's."""
    loader = re.search(r"with error: (.+)", stderr)
    if loader:
        return loader[1].strip()
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return re.sub(r"^\w+(Error|Exception): ", "", lines[-1]) if lines else ""
