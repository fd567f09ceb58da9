"""The interface of TensorRT's real bindings: a wheel as NVIDIA ships it -> Interface."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.vendor.signatures import Signature, pybind_signatures

WHEELS: Final = Path(sys.prefix) / "tensorrt"  # `make` downloads them, by their first number
COMPILED: Final = "tensorrt_bindings/tensorrt.so"
DESCRIBE: Final = Path(__file__).with_name("describe.py")


class Unreadable(Exception):
    """Why there are no bindings to read on this machine."""


@dataclass(frozen=True, slots=True)
class Interface:
    """The output of describe.py: docstrings, enum members, Python sources."""

    version: str
    classes: Mapping[str, Mapping[str, Any]]
    constants: Mapping[str, str]
    sources: Mapping[str, str]

    def method(self, owner: str, name: str) -> tuple[Signature, ...] | None:
        """The overloads of a method, its own or inherited; None where there is none."""
        found = self.classes[owner]
        if name in found["methods"]:
            return pybind_signatures(found["methods"][name], self.classes)
        inherited = (self.method(base, name) for base in found["bases"] if base in self.classes)
        return next((each for each in inherited if each is not None), None)

    def setter(self, owner: str, name: str) -> str | None:
        """The type that a property takes; None where it cannot be set."""
        _, setter = self.classes[owner]["properties"].get(name, (None, None))
        return pybind_signatures(setter, self.classes)[0].parameters[0].type if setter else None

    def readable(self, owner: str, name: str) -> bool:
        """Whether the class has a property that can be read."""
        getter, _ = self.classes[owner]["properties"].get(name, (None, None))
        return getter is not None


def find_wheel(version: str, wheels: Path = WHEELS) -> Path:
    """The wheel that this interpreter can import; raises Unreadable."""
    tag = f"-cp{sys.version_info.major}{sys.version_info.minor}-"
    if sys.platform != "linux":
        raise Unreadable("TensorRT's bindings are read on Linux")
    if shutil.which("gcc") is None:
        raise Unreadable("gcc is not installed, which compiles stubs of TensorRT's libraries")
    found = sorted((wheels / version).glob("tensorrt_cu*_bindings-*.whl"))
    fitting = [each for each in found if tag in each.name and platform.machine() in each.name]
    if not fitting:
        raise Unreadable(f"no wheel in {wheels / version} fits {tag.strip('-')}: make test")
    return fitting[-1]


def read_wheel(wheel: Path) -> Interface:
    """The interface of the bindings in it."""
    with importable(wheel) as folder:
        return Interface(**json.loads(run_python(folder, str(DESCRIBE), str(folder))))


@contextmanager
def importable(wheel: Path) -> Iterator[Path]:
    """A folder with the bindings, and stubs of the libraries that they need."""
    with TemporaryDirectory() as name, zipfile.ZipFile(wheel) as archive:
        folder = Path(name)
        archive.extractall(folder)
        _write_stubs(folder / COMPILED, folder)
        yield folder


def run_python(folder: Path, *arguments: str) -> str:
    """The output of a process that sees the folder's libraries and no site packages."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-I", "-S", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def _write_stubs(module: Path, folder: Path) -> None:
    """NVIDIA's libraries that the module needs, with functions that return 0.

    Symbols of libc and libstdc++ have a version; those of the interpreter begin with Py.
    """
    names = []
    for line in _readelf("--dyn-syms", module):
        match line.split():
            case [_, _, _, _, "GLOBAL", _, "UND", name] if not name.startswith(("Py", "_Py")):
                names.append(name)
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
    for line in _readelf("--dynamic", module):
        if library := re.search(r"\(NEEDED\).*\[(libnv.*)\]", line):
            target = folder / library[1]
            subprocess.run(["gcc", "-shared", "-fPIC", "-o", target, source], check=True)


def _readelf(table: str, module: Path) -> list[str]:
    command = ["readelf", "--wide", table, str(module)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
