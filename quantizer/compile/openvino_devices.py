"""The devices that OpenVINO finds on this machine."""

import openvino as ov

from quantizer.compile.hardware import OpenVinoDevice
from service.engines.openvino_engine import read_property

DRIVERS = ("GPU_DRIVER_VERSION", "NPU_DRIVER_VERSION")


def list_devices() -> list[OpenVinoDevice]:
    """Each with its properties; those that it does not tell are empty."""
    core = ov.Core()
    return [
        OpenVinoDevice(
            name=name,
            full_name=_text(core, name, "FULL_DEVICE_NAME"),
            architecture=_text(core, name, "DEVICE_ARCHITECTURE"),
            driver="".join(_text(core, name, each) for each in DRIVERS),
            precisions=capabilities(name),
        )
        for name in core.available_devices
    ]


def capabilities(device: str) -> tuple[str, ...]:
    """The types in which a device computes fast, as FP32, FP16 and INT8.

    Empty for a mode over devices, as HETERO:GPU,CPU, and where the device is not here.
    """
    listed = read_property(ov.Core(), device, "OPTIMIZATION_CAPABILITIES") or ()
    return tuple(each for each in ("FP32", "BF16", "FP16", "INT8") if each in listed)


def _text(core: ov.Core, device: str, name: str) -> str:
    return str(read_property(core, device, name) or "")
