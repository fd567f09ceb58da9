"""The files of a model as an exporter wrote them."""

import os
import re
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from quantizer.errors import UnsupportedModel

PICKLES: Final = frozenset({".pt", ".pth", ".pkl"})
EXPORT_COMMANDS: Final = (
    "Ultralytics: yolo export model=X.pt format=onnx; "
    "YOLOv5 and YOLOv7: python export.py --weights X.pt --include onnx"
)
# In onnx.proto a tensor's StringStringEntryProto external_data: the field key = 1, "location", then
# the field value = 2 with its length, a varint of one or two bytes.
LOCATION: Final = re.compile(
    rb"\x0a\x08location\x12([\x80-\xff][\x00-\x7f]|[\x00-\x7f])", re.DOTALL
)


def require_onnx(path: Path) -> None:
    """Raise UnsupportedModel for the name of a pickle, and where there is no file."""
    if path.suffix in PICKLES:
        raise UnsupportedModel(
            f"{path.name} is a pickle, which is code: export it to ONNX first ({EXPORT_COMMANDS})"
        )
    if not path.is_file():
        raise UnsupportedModel(f"no such file: {path}; qyolo models lists models by name")


def onnx_files(path: Path) -> list[Path]:
    """The ONNX file and the files of its external data, in the order in which it names them."""
    if path.stat().st_size == 0:  # cannot be mapped; the build says that it is no model
        return [path]
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as model:
        locations = dict.fromkeys(_locations(model))
    data = (path.parent / location for location in locations)
    return [path, *(each for each in data if each.is_file())]


def _locations(model: mmap) -> Iterator[str]:
    """The locations of external data that a serialized model names.

    They are found without a parser, so that a server that only computes a cache key need not load
    the package onnx. Bytes of weights may look like a location; a file that has such a name too
    would only be read in vain.
    """
    for found in LOCATION.finditer(model):
        low, high = found[1][0], found[1][1:]
        length = low & 0x7F | (high[0] << 7 if high else 0)
        yield os.fsdecode(model[found.end() : found.end() + length].split(b"\0")[0])
