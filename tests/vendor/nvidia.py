"""A box with a GPU, TensorRT and CUDA, as far as our code can tell."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from tests.vendor.device import Device
from tests.vendor.fake_cuda import FakeCuda
from tests.vendor.fake_tensorrt import FakeTensorRt
from tests.vendor.installed import installed
from tests.vendor.inventory import Inventory
from tests.vendor.plot import Plot
from tests.vendor.scripted import scripted_tensorrt


@dataclass(frozen=True, slots=True)
class Nvidia:
    """`plot.fail` lets TensorRT fail, `cuda.fail` CUDA; `device` tells what became of both."""

    fake: FakeTensorRt
    cuda: FakeCuda
    plot: Plot

    @property
    def tensorrt(self) -> ModuleType:
        """The fake module."""
        return self.fake.module

    @property
    def cudart(self) -> ModuleType:
        """The fake module."""
        return self.cuda.module

    @property
    def device(self) -> Device:
        """What both work on."""
        return self.cuda.device


@contextmanager
def nvidia_box(tensorrt: Inventory, cudart: Inventory) -> Iterator[Nvidia]:
    """Within it, our modules import the fakes."""
    cuda = FakeCuda(cudart)
    script = scripted_tensorrt(tensorrt, cuda.device)
    with installed(script.module, cuda.module):
        yield Nvidia(script.fake, cuda, script.plot)
