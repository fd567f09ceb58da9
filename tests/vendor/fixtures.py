"""Fixtures: a machine with an NVIDIA GPU, as far as our code can tell.

A plugin of every test run, so heavy or missing modules are imported only in the fixtures.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Final

import pytest

from tests.vendor.interface import Interface, Unreadable, find_wheel, read_wheel

if TYPE_CHECKING:
    from tests.vendor.device import Device
    from tests.vendor.fake_cuda import FakeCuda
    from tests.vendor.fake_tensorrt import FakeTensorRt

PRODUCT: Final = ("quantizer", "qyolo", "service")
VENDOR_MODULES: Final = ("cuda_", "tensorrt_")  # how our modules begin that import a vendor's


@dataclass(frozen=True, slots=True)
class Nvidia:
    """`tensorrt.fail` and `cuda.fail` inject failures; `device` shows what was left behind."""

    tensorrt: "FakeTensorRt"
    cuda: "FakeCuda"

    @property
    def device(self) -> "Device":
        return self.cuda.device


@pytest.fixture(scope="session", params=["10", "11"], ids="tensorrt-{}".format)
def tensorrt_interface(request) -> Interface:
    """Of each version in turn."""
    try:
        return read_wheel(find_wheel(request.param))
    except Unreadable as exc:
        pytest.skip(f"TensorRT {request.param}: {exc}")


@pytest.fixture
def nvidia(tensorrt_interface) -> Iterator[Nvidia]:
    """With each version of TensorRT in turn; our modules import the fakes."""
    reason = "cuda-bindings is not installed: make test"
    pytest.importorskip("cuda.bindings.runtime", reason=reason, exc_type=ImportError)
    from tests.vendor import fake_build, fake_run
    from tests.vendor.fake_cuda import FakeCuda
    from tests.vendor.fake_tensorrt import Fake, FakeTensorRt

    cuda = FakeCuda()
    named = {**vars(fake_build), **vars(fake_run)}.values()
    fakes = [each for each in named if isinstance(each, type(Fake)) and each is not Fake]
    tensorrt = FakeTensorRt(tensorrt_interface, cuda.device, fakes)
    with installed(tensorrt.module, cuda.module):
        yield Nvidia(tensorrt, cuda)


@contextmanager
def installed(tensorrt: ModuleType, cudart: ModuleType) -> Iterator[None]:
    """Our modules that import these vendors are imported anew within, and again afterwards."""
    bindings, cuda = ModuleType("cuda.bindings"), ModuleType("cuda")
    bindings.runtime, cuda.bindings = cudart, bindings  # type: ignore[attr-defined]
    cuda.__path__, bindings.__path__ = [], []
    fakes = {
        "tensorrt": tensorrt,
        "cuda": cuda,
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": cudart,
    }
    before = {name: sys.modules[name] for name in (*fakes, *_ours()) if name in sys.modules}
    _replace(before, fakes)
    try:
        yield
    finally:
        _replace(dict.fromkeys([*fakes, *_ours()]), before)


def _ours() -> list[str]:
    return [
        name
        for name in sys.modules
        if name.startswith(PRODUCT) and name.rpartition(".")[2].startswith(VENDOR_MODULES)
    ]


def _replace(old: Mapping[str, ModuleType | None], new: Mapping[str, ModuleType]) -> None:
    """In sys.modules, and in our packages, which hold their modules as attributes."""
    for name in old:
        sys.modules.pop(name, None)
        package, _, attribute = name.rpartition(".")
        if name.startswith(PRODUCT) and attribute in vars(sys.modules[package]):
            delattr(sys.modules[package], attribute)
    for name, module in new.items():
        sys.modules[name] = module
        package, _, attribute = name.rpartition(".")
        if name.startswith(PRODUCT):
            setattr(sys.modules[package], attribute, module)
