"""The device of OpenVINO's for which a build makes engines beside the processor's."""

from dataclasses import dataclass
from typing import Final

from quantizer.config import BuildConfig
from quantizer.errors import BadOption
from service.engines.intel import PLACES
from service.manifest import FloatType, Runtime

FLOAT_TYPES: Final[dict[str, FloatType]] = {"FP32": "f32", "FP16": "f16"}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A device as OpenVINO writes it, and the float types in which to try it.

    int8 is tried with each of them for its other layers: on some GPUs it gives wrong boxes with
    float16 alone (OpenVINO issue 37446).
    """

    device: str
    float_types: tuple[FloatType, ...]


def choose_accelerator(config: BuildConfig, runtime: Runtime) -> Accelerator | None:
    """The device that the options name; None if they name none.

    Raises BadOption where OpenVINO is not the runtime, or has no driver for the device.
    """
    name = config.accelerator
    if name is None:
        return None
    if runtime != "openvino":
        raise BadOption("openvino_device", f"{name}: {runtime} has none; add --runtime openvino")
    from quantizer.compile.openvino_devices import capabilities, list_devices

    if config.device in PLACES and config.openvino_device is None:
        found = [each.name for each in list_devices()]
        if not any(each.partition(".")[0] == name for each in found):
            place = PLACES[config.device]
            raise BadOption(
                "device",
                f"{config.device}: OpenVINO finds only {', '.join(found)}, so it has no driver for "
                f"the {place.title}: {place.packages}",
            )
    types = capabilities(name) or tuple(FLOAT_TYPES)
    return Accelerator(name, tuple(FLOAT_TYPES[each] for each in FLOAT_TYPES if each in types))
