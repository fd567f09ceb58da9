"""Every use that our own source makes of NVIDIA's modules fits the real ones, in each version."""

from pathlib import Path

import pytest

from tests.vendor.fit import misfits
from tests.vendor.inventory import Inventory
from tests.vendor.usage import read_usage

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for package in ("quantizer", "qyolo", "service")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name.startswith(("cuda_", "tensorrt_"))
]


def require_fit(path: Path, inventory: Inventory) -> None:
    usage = read_usage(path.read_text(), inventory)
    assert usage.unresolved == ()
    assert misfits(usage, inventory) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_tensorrt_has_what_we_use(path, tensorrt_inventory):
    require_fit(path, tensorrt_inventory)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_cuda_has_what_we_use(path, cuda_inventory):
    require_fit(path, cuda_inventory)


def test_the_sources_do_use_them(tensorrt_11, cuda_inventory):
    for inventory in (tensorrt_11, cuda_inventory):
        assert any(read_usage(path.read_text(), inventory).uses for path in SOURCES)
