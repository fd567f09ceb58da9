"""The software that a build depends on."""

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    "qyolo",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "pillow",
    # Their names depend on how TensorRT was installed.
    "tensorrt",
    "tensorrt_cu12",
    "tensorrt_cu13",
    "tensorrt_rtx_cu12_bindings",
    "tensorrt_rtx_cu13_bindings",
)


def versions() -> dict[str, str]:
    """The version of Python and of each installed package that can change a build."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


@cache
def source_digest() -> str:
    """A digest of the code that a build runs, so that edited code does not reuse an old build."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for package in ("quantizer", "service"):
        for path in sorted([*(root / package).rglob("*.py"), *(root / package).rglob("*.html")]):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
