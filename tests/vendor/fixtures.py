"""Fixtures: a machine with an RTX 4090, as far as our code can tell. A plugin of every test run."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.quantizer.machines import RTX_4090

if TYPE_CHECKING:
    from tests.vendor.fake_engine import FakeDriver


@pytest.fixture(scope="session")
def compiler():
    """The Python module of TensorRT for RTX, with its compiler."""
    return pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def nvidia(request, compiler, tmp_path, monkeypatch) -> "FakeDriver":
    """A driver for the plans in `tmp_path`, with each of the two libraries in turn."""
    return _install(request.param, compiler, tmp_path, monkeypatch)


@pytest.fixture
def rtx(compiler, tmp_path, monkeypatch) -> "FakeDriver":
    """The same with TensorRT for RTX alone."""
    return _install("tensorrt-rtx", compiler, tmp_path, monkeypatch)


def _install(runtime, compiler, folder: Path, monkeypatch) -> "FakeDriver":
    from service.engines import cuda_device, tensorrt_engine, tensorrt_library
    from service.engines.tensorrt_library import Library
    from service.inference import first_start
    from tests.vendor.fake_engine import FakeDriver

    driver = FakeDriver(compiler, runtime, folder)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))  # a profile's plans lie there
    monkeypatch.setattr(cuda_device, "cudart", driver.cuda)
    monkeypatch.setattr(
        tensorrt_library, "load_library", lambda runtime: Library(runtime, driver.module)
    )
    for module in (tensorrt_engine, first_start):
        monkeypatch.setattr(module, "find_gpu", lambda: RTX_4090)
    return driver
