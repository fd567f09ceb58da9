"""A TensorRT that builds and runs: ready-made behaviours for a fake of any version."""

from collections.abc import Callable
from types import ModuleType

import onnx

from tests.vendor.behaviour import behaviours_of
from tests.vendor.device import Device
from tests.vendor.fake_tensorrt import FakeTensorRt
from tests.vendor.inventory import Inventory
from tests.vendor.plot import Plot
from tests.vendor.scripted_build import Building, Parsing
from tests.vendor.scripted_config import Configs
from tests.vendor.scripted_run import Inspecting, Runner, Running, by_onnxruntime


class ScriptedTensorRt:
    """The module, what is to go wrong in it, and what happened."""

    def __init__(self, fake: FakeTensorRt, plot: Plot) -> None:
        self.fake = fake
        self.plot = plot

    @property
    def module(self) -> ModuleType:
        """To be imported as tensorrt."""
        return self.fake.module


def scripted_tensorrt(
    inventory: Inventory,
    device: Device,
    runner: Callable[[onnx.ModelProto], Runner] = by_onnxruntime,
) -> ScriptedTensorRt:
    """Its engines use the device's memory and streams, and `runner` computes."""
    fake, plot = FakeTensorRt(inventory), Plot()
    parts = (
        Parsing(fake, plot),
        Configs(fake),
        Building(fake, plot),
        Running(fake, plot, device, runner),
        Inspecting(),
    )
    for part in parts:
        fake.script(behaviours_of(part))
    return ScriptedTensorRt(fake, plot)
