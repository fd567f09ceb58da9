"""Tensors of the Open Inference Protocol: ports, and values as JSON or bytes.

Binary values are little-endian and row-major; the length of a BYTES element precedes it.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from pydantic_core import from_json

from service.errors import BadRequest
from service.http.json_outline import LongValue, Outline, count_of
from service.http.uploads import from_base64
from service.vision.detections import Floats, Ints

Datatype = Literal["FP32", "INT64", "BYTES"]
Values = Floats | Ints | Sequence[str]

LENGTH: Final = struct.Struct("<I")
PIECE: Final = 2**15  # bytes of JSON that are parsed at a time, since that holds the GIL
MAX_LISTS: Final = 10_000  # in a tensor: one for each row of each channel


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
    try:
        return _floats(np.asarray(data)).reshape(port.shape)
    except (ValueError, OverflowError) as exc:
        raise _not_numbers(port) from exc


def floats_of_long_json(port: Port, data: LongValue) -> Floats:
    """The same for a long list, which is parsed in pieces."""
    count = math.prod(port.shape)
    commas, lists = (count_of(data.body, ord(c), data.start, data.end) for c in ",[")
    if commas != count - 1 or lists > MAX_LISTS:
        raise _not_numbers(port)
    try:
        rows, outline = _innermost(data)
        if len(rows) != outline.size or len({len(row) for row in rows}) != 1:
            raise _not_numbers(port)
        return np.concatenate(rows).reshape(port.shape)
    except (ValueError, OverflowError) as exc:
        raise _not_numbers(port) from exc


def _innermost(data: LongValue) -> tuple[list[Floats], Ints]:
    """The lists that contain no others, and those around them with 0 in the place of each."""
    rows, outline, at = [], [], data.start
    while (end := data.body.find(b"]", at, data.end)) >= 0:
        start = data.body.rfind(b"[", at, end)
        if start >= 0:
            rows.append(_numbers(data.body, start + 1, end))
            outline += [data.body[at:start], b"0"]
        else:  # the end of a list of lists
            outline.append(data.body[at : end + 1])
        at = end + 1
    return rows, np.asarray(from_json(b"".join([*outline, data.body[at : data.end]])))


def _numbers(body: bytes, start: int, end: int) -> Floats:
    """Raises ValueError."""
    pieces = []
    while start < end:
        stop = end if end - start <= PIECE else body.rfind(b",", start, start + PIECE)
        if stop < 0:
            raise ValueError("a very long number")
        pieces.append(_floats(np.asarray(from_json(b"[%b]" % body[start:stop]))))
        start = stop + 1
    return np.concatenate(pieces)


def _floats(array: Floats) -> Floats:
    """Numbers as f32; raises ValueError for others."""
    if array.dtype.kind not in "fiu":
        raise ValueError("not numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        return array.astype(np.float32)


def _not_numbers(port: Port) -> BadRequest:
    count = math.prod(port.shape)
    return BadRequest(f"the data of input {port.name!r} must be {count} numbers")


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


def element_of_json(port: Port, data: list[Any], outline: Outline) -> bytes:
    """One text in base64 -> the one element of BYTES [1]; raises BadRequest."""
    match data:
        case [str(text)]:
            return from_base64(outline.text(text))
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
