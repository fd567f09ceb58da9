"""Other machines, as `detect` would describe them."""

from dataclasses import replace
from typing import Final

from quantizer.compile.hardware import Hardware, Installed, Missing
from service.engines.cpu import Cpu
from service.engines.gpu import Gpu, NoGpu
from service.engines.intel import IntelDevice

NO_DRIVER: Final = NoGpu("no NVIDIA driver here", "install the driver")
RTX_4090: Final = Gpu("NVIDIA GeForce RTX 4090", "8.9", 24564, "580.65.06", 0)
H100: Final = Gpu("NVIDIA H100 80GB HBM3", "9.0", 81559, "580.65.06", 0)
GTX_1080: Final = Gpu("NVIDIA GeForce GTX 1080", "6.1", 8192, "580.65.06", 0)

LAPTOP: Final = Hardware(
    cpu=Cpu("Intel(R) Core(TM) i7", ("AVX2", "AVX-VNNI")),
    threads=8,
    cores=16,
    memory_limit_mib=None,
    gpu=NO_DRIVER,
    runtimes={
        "tensorrt": Missing("is not installed: pip install tensorrt"),
        "tensorrt-rtx": Missing("is not installed: pip install tensorrt-rtx"),
        "onnxruntime-cuda": Missing("is not installed: pip install onnxruntime-gpu"),
        "openvino": Installed("2026.4.1"),
        "onnxruntime": Installed("1.32.0"),
    },
    intel={
        "intel-gpu": IntelDevice(problem="no Intel GPU here", remedy="modprobe i915"),
        "intel-npu": IntelDevice(problem="no Intel NPU here", remedy="modprobe intel_vpu"),
    },
)


def machine(gpu: Gpu | NoGpu, **runtimes: str | Missing) -> Hardware:
    """The laptop with another GPU and other runtimes: the version of each, or why it is missing.

    onnxruntime_cuda stands for onnxruntime-cuda, tensorrt_rtx for tensorrt-rtx.
    """
    states = {
        name.replace("_", "-"): state if isinstance(state, Missing) else Installed(state)
        for name, state in runtimes.items()
    }
    return replace(LAPTOP, gpu=gpu, runtimes={**LAPTOP.runtimes, **states})
