"""Tensors of the Open Inference Protocol: ports, and values as JSON or bytes.

Binary values are little-endian and row-major; the length of a BYTES element precedes it.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from service.errors import BadRequest
from service.http.uploads import from_base64
from service.vision.detections import Floats, Ints

Datatype = Literal["FP32", "INT64", "BYTES"]
Values = Floats | Ints | Sequence[str]

LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model; a size of -1 varies."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


def floats_of_bytes(port: Port, data: memoryview) -> Floats:
    """Bytes -> f32 of the port's shape; raises BadRequest."""
    needed = 4 * math.prod(port.shape)
    if len(data) != needed:
        raise BadRequest(f"input {port.name!r} is {needed} bytes, {len(data)} were sent")
    # The bytes may begin at any offset of the body; engines need aligned memory, hence a copy.
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(port.shape)


def floats_of_json(port: Port, data: list[Any]) -> Floats:
    """Numbers, flat or nested -> f32 of the port's shape; raises BadRequest."""
    count = math.prod(port.shape)
    error = BadRequest(f"the data of input {port.name!r} must be {count} numbers")
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError) as exc:
        raise error from exc
    if array.dtype.kind not in "fiu" or array.size != count:
        raise error
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        return array.astype(np.float32).reshape(port.shape)


def element_of_bytes(port: Port, data: memoryview) -> bytes:
    """Bytes -> the one element of BYTES [1]; raises BadRequest."""
    if len(data) < LENGTH.size:
        raise BadRequest(f"input {port.name!r} ends within its element's length")
    (length,) = LENGTH.unpack_from(data)
    element = data[LENGTH.size :]
    if len(element) != length:
        raise BadRequest(
            f"the element of input {port.name!r} declares {length} bytes, {len(element)} were sent"
        )
    return bytes(element)


def element_of_json(port: Port, data: list[Any]) -> bytes:
    """One text in base64 -> the one element of BYTES [1]; raises BadRequest."""
    match data:
        case [str(text)]:
            return from_base64(text)
    raise BadRequest(f"the data of input {port.name!r} must be one text in base64")


def bytes_of(values: Values) -> bytes:
    if isinstance(values, np.ndarray):
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = (value.encode() for value in values)
    return b"".join(LENGTH.pack(len(element)) + element for element in encoded)


def json_of(values: Values) -> list[Any]:
    """A flat list, as Triton sends it."""
    return list(values.ravel().tolist() if isinstance(values, np.ndarray) else values)


def shape_of(values: Values) -> list[int]:
    return list(values.shape) if isinstance(values, np.ndarray) else [len(values)]
