"""OpenVINO with a GPU, which is not here: its processor's plugin computes what the GPU would.

Everything but the name of the device is the real OpenVINO: the options must be those that its real
GPU plugin knows, networks are compiled and exported, and a network that fails fails in its runtime.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Literal

import openvino as ov
from openvino import opset13 as ops

from quantizer.compile.openvino_builder import OpenVinoBuilder

Fault = Literal["", "compile", "run", "boxes", "crash", "exit", "hang"]
NAME: Final = "GPU"
TOLD: Final = {
    "FULL_DEVICE_NAME": "Intel(R) Iris(R) Xe Graphics (iGPU)",
    "DEVICE_ARCHITECTURE": "GPU: vendor=0x8086 arch=v12.3.0",
    "GPU_DRIVER_VERSION": "24.52.32224",
    "OPTIMIZATION_CAPABILITIES": ["FP32", "BIN", "FP16", "INT8", "EXPORT_IMPORT"],
}


def core_with_gpu(
    fault: Callable[[str, bool], Fault] = lambda precision, int8: "", **told: str
) -> type[ov.Core]:
    """A class to put in place of `openvino.Core`.

    `fault` decides what goes wrong with a network, by its float type and whether it is quantized;
    `told` changes what the GPU tells of itself.
    """

    class GpuCore(ov.Core):
        compiled: ClassVar[list[dict[str, object]]] = []  # the options of each network for the GPU

        @property
        def available_devices(self):
            return [*super().available_devices, NAME]

        def get_property(self, device_name, property):
            if device_name == NAME and property in TOLD:
                return (TOLD | told)[property]
            return super().get_property(device_name, property)

        def compile_model(self, model, device_name=None, config=None, *, weights=None):
            if device_name != NAME:
                return super().compile_model(model, device_name, config)
            known = super().get_property(NAME, "SUPPORTED_PROPERTIES")
            assert {known.get(name) for name in config} == {"RW"}, config
            self.compiled.append(config)
            network = self.read_model(model) if isinstance(model, Path | str) else model.clone()
            int8 = any(each.get_type_name() == "FakeQuantize" for each in network.get_ops())
            match fault(config["INFERENCE_PRECISION_HINT"], int8):
                case "compile":
                    raise RuntimeError("Exception from program.cpp:512:\nno kernel for Softplus\n")
                case "crash":
                    os.kill(os.getpid(), signal.SIGSEGV)
                case "exit":
                    os._exit(3)
                case "hang":
                    time.sleep(600)
                case "run":
                    network = of_one_pixel()
                case "boxes":
                    network = negated(network)
            return super().compile_model(network, "CPU", config)

        def import_model(self, model_stream, device_name, config=None):
            device = "CPU" if device_name == NAME else device_name
            return super().import_model(model_stream, device, config)

    return GpuCore


def faulty(faults: Mapping[tuple[str, bool], Fault]) -> Callable[[str, bool], Fault]:
    """The fault of each float type, of float and of quantized networks; it can be pickled."""
    return partial(_fault_of, faults)


def _fault_of(faults: Mapping[tuple[str, bool], Fault], precision: str, int8: bool) -> Fault:
    return faults.get((precision, int8), "")


class GpuBuilder(OpenVinoBuilder):
    """A builder on a machine with this GPU, which the process that it is sent to has too."""

    def __init__(
        self, threads: int, fault: Callable[[str, bool], Fault], told: Mapping[str, str]
    ) -> None:
        super().__init__(threads)
        self._gpu = fault, told

    def __reduce__(self):
        return _installed, (self._threads, *self._gpu)


def _installed(threads: int, fault: Callable[[str, bool], Fault], told: Mapping[str, str]):
    """In another process."""
    ov.Core = core_with_gpu(fault, **told)
    return GpuBuilder(threads, fault, told)


def of_one_pixel() -> ov.Model:
    """A network that fails at every request, because no image has its size."""
    pixel = ops.parameter([1, 1, 1, 3], ov.Type.u8)
    return ov.Model([ops.convert(pixel, "f32")], [pixel])


def negated(network: ov.Model) -> ov.Model:
    """The network whose outputs have the other sign."""
    outputs = [ops.negative(each.input_value(0)) for each in network.get_results()]
    return ov.Model(outputs, network.get_parameters())
