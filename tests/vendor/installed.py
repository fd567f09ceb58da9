"""Puts fakes where the product imports TensorRT and CUDA from, for as long as a test wants."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Final

PRODUCT: Final = ("quantizer", "qyolo", "service")
SPEAKERS: Final = ("cuda_", "tensorrt_")  # how the names of the modules begin that import them


@contextmanager
def installed(tensorrt: ModuleType, cudart: ModuleType) -> Iterator[None]:
    """Our modules that name these vendors are imported anew within, and again afterwards."""
    bindings, cuda = ModuleType("cuda.bindings"), ModuleType("cuda")
    bindings.runtime, cuda.bindings = cudart, bindings  # type: ignore[attr-defined]
    cuda.__path__, bindings.__path__ = [], []
    fakes = {
        "tensorrt": tensorrt,
        "cuda": cuda,
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": cudart,
    }
    before = {name: sys.modules[name] for name in (*fakes, *_speakers()) if name in sys.modules}
    _replace(before, fakes)
    try:
        yield
    finally:
        _replace(dict.fromkeys([*fakes, *_speakers()]), before)


def _speakers() -> list[str]:
    return [
        name
        for name in sys.modules
        if name.startswith(PRODUCT) and name.rpartition(".")[2].startswith(SPEAKERS)
    ]


def _replace(gone: Mapping[str, ModuleType | None], come: Mapping[str, ModuleType]) -> None:
    """In sys.modules, and in the packages of ours, which hold their modules as attributes."""
    for name in gone:
        sys.modules.pop(name, None)
        package, _, attribute = name.rpartition(".")
        if name.startswith(PRODUCT) and attribute in vars(sys.modules[package]):
            delattr(sys.modules[package], attribute)
    for name, module in come.items():
        sys.modules[name] = module
        package, _, attribute = name.rpartition(".")
        if name.startswith(PRODUCT):
            setattr(sys.modules[package], attribute, module)
