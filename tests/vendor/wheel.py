"""TensorRT's bindings as NVIDIA ships them: a wheel -> Inventory."""

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.vendor import probe
from tests.vendor.inventory import Inventory, Parameter, Property, Signature, VendorClass
from tests.vendor.signatures import pybind_signatures
from tests.vendor.stubs import write_stubs

PACKAGE: Final = "tensorrt_bindings"  # which the package tensorrt only passes on
COMPILED: Final = f"{PACKAGE}.tensorrt"
WHEELS: Final = Path(sys.prefix) / "tensorrt"  # where make puts them, by their first number


class Unreadable(Exception):
    """Why there are no bindings to read on this machine."""


def find_wheel(version: str, wheels: Path = WHEELS) -> Path:
    """The wheel that this interpreter can import; raises Unreadable."""
    tag = f"-cp{sys.version_info.major}{sys.version_info.minor}-"
    if sys.platform != "linux":
        raise Unreadable("TensorRT's bindings are read on Linux")
    if shutil.which("gcc") is None:
        raise Unreadable("gcc is not installed, which compiles stand-ins for TensorRT's libraries")
    folder = wheels / version
    found = sorted(folder.glob("tensorrt_cu*_bindings-*.whl"))
    fitting = [each for each in found if tag in each.name and platform.machine() in each.name]
    if not fitting:
        raise Unreadable(f"no wheel in {folder} fits {tag.strip('-')}: make test")
    return fitting[-1]


def read_wheel(wheel: Path) -> Inventory:
    """What the bindings in it offer."""
    with importable(wheel) as folder:
        return _inventory(json.loads(run_python(folder, probe.__file__, str(folder), PACKAGE)))


@contextmanager
def importable(wheel: Path) -> Iterator[Path]:
    """A folder with the bindings in it, and empty libraries for them."""
    with TemporaryDirectory() as name, zipfile.ZipFile(wheel) as archive:
        folder = Path(name)
        archive.extractall(folder)
        write_stubs(folder / f"{COMPILED.replace('.', '/')}.so", folder)
        yield folder


def run_python(folder: Path, *arguments: str) -> str:
    """What is printed, in a process that sees the folder's libraries and no site packages."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-I", "-S", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the bindings cannot be used: {done.stderr}")
    return done.stdout


def _inventory(told: Mapping[str, Any]) -> Inventory:
    names = told["classes"].keys()
    functions = {
        name: pybind_signatures(doc, COMPILED, names, static=True)
        for name, doc in told["functions"].items()
    }
    return Inventory(
        module="tensorrt",
        version=told["version"],
        classes={name: _class(name, each, names) for name, each in told["classes"].items()},
        functions=functions | {name: _untyped(each) for name, each in told["python"].items()},
        constants=told["constants"],
        sources=told["sources"],
    )


def _class(name: str, told: Mapping[str, Any], names: Collection[str]) -> VendorClass:
    methods = {
        method: pybind_signatures(doc, COMPILED, names, static=method in told["static"])
        for method, doc in told["methods"].items()
    }
    python = {method: _untyped(each[1:]) for method, each in told["python"].items()}
    return VendorClass(
        name=name,
        bases=tuple(base for base in told["bases"] if base in names),
        methods=methods | python,
        static=tuple(told["static"]),
        properties={
            attribute: _property(*accessors, names)
            for attribute, accessors in told["properties"].items()
        },
        members=told["members"],
        constants=told["constants"],
        buffer=told["buffer"],
    )


def _property(getter: str | None, setter: str | None, names: Collection[str]) -> Property:
    """An accessor that is written in Python tells no type."""
    gives = takes = None
    if getter is not None:
        gives = pybind_signatures(getter, COMPILED, names)[0].returns if getter else "object"
    if setter is not None:
        (signature,) = pybind_signatures(setter, COMPILED, names)
        takes = signature.parameters[0].type
    return Property(gives, takes)


def _untyped(parameters: Sequence[tuple[str, str | None]]) -> tuple[Signature, ...]:
    typed = tuple(Parameter(name, "object", default) for name, default in parameters)
    return (Signature(typed, "object"),)
