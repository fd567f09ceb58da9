"""NVIDIA's interfaces for tests: what the real modules offer, and a box with fakes of them.

A plugin of every test run, so that it imports what is heavy or may be missing only where asked.
"""

import pytest

from tests.vendor.inventory import Inventory
from tests.vendor.wheel import Unreadable, find_wheel, read_wheel

VERSIONS = ("10", "11")


def _read(version: str) -> Inventory:
    try:
        return read_wheel(find_wheel(version))
    except Unreadable as exc:
        pytest.skip(f"TensorRT {version}: {exc}")


@pytest.fixture(scope="session")
def tensorrt_10():
    return _read("10")


@pytest.fixture(scope="session")
def tensorrt_11():
    return _read("11")


@pytest.fixture(scope="session", params=VERSIONS, ids="tensorrt-{}".format)
def tensorrt_inventory(request):
    """Of each version in turn."""
    return request.getfixturevalue(f"tensorrt_{request.param}")


@pytest.fixture(scope="session")
def cuda_inventory():
    """Of the installed version."""
    reason = "cuda-bindings is not installed: make test"
    pytest.importorskip("cuda.bindings.runtime", reason=reason, exc_type=ImportError)
    from tests.vendor.cuda_runtime import read_cuda_runtime

    return read_cuda_runtime()


@pytest.fixture
def nvidia(tensorrt_inventory, cuda_inventory):
    """A box with a GPU and each version of TensorRT in turn; our modules import the fakes."""
    from tests.vendor.nvidia import nvidia_box

    with nvidia_box(tensorrt_inventory, cuda_inventory) as box:
        yield box
