"""Requests and responses of an inference: JSON, or JSON followed by binary tensors.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from service.errors import BadRequest, PayloadTooLarge, UnsupportedUpload
from service.http.json_outline import Outline, outline_of
from service.http.validation import BoundedObject, validated
from service.protocols.oip.tensors import (
    Port,
    Values,
    bytes_of,
    element_of_bytes,
    element_of_json,
    floats_of_bytes,
    floats_of_json,
    floats_of_long_json,
    json_of,
    shape_of,
)
from service.vision.detections import Floats

Outputs = Mapping[str, Values]

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS  # zlib detects which of the two headers it is
ENCODINGS: Final = ("gzip", "deflate")
INFLATED_PIECE: Final = 2**20  # bytes
# Hints for Triton's scheduler; this server answers in the order of arrival.
HINTS: Final = frozenset({"priority", "sequence_end", "sequence_id", "sequence_start", "timeout"})

Name = Annotated[str, Field(max_length=256)]  # responses and errors repeat it
Scalar = bool | int | float | Annotated[str, Field(max_length=4096)]


class _InputParameters(BoundedObject):
    model_config = ConfigDict(extra="forbid")  # shared memory would be a parameter, too

    binary_data_size: int | None = Field(default=None, ge=0)


class _Input(BaseModel):
    name: Name
    shape: list[int] = Field(max_length=8)
    datatype: Name
    parameters: _InputParameters = _InputParameters()
    data: list[Any] | str | None = None  # a text names a long list


class _RequestedOutputParameters(BoundedObject):
    model_config = ConfigDict(extra="forbid")

    binary_data: bool | None = None


class _RequestedOutput(BaseModel):
    name: Name
    parameters: _RequestedOutputParameters = _RequestedOutputParameters()


class _Parameters(BoundedObject):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Scalar] = Field(init=False)

    binary_data_output: bool = False


class _Request(BaseModel):
    id: Name | None = None
    parameters: _Parameters = _Parameters()
    inputs: list[_Input] = Field(min_length=1, max_length=1)
    outputs: list[_RequestedOutput] | None = Field(default=None, max_length=64)


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """The value of the one input, and the outputs to send: name -> whether as bytes."""

    value: Floats | bytes
    parameters: Mapping[str, object]
    outputs: Mapping[str, bool]
    id: str | None = None


def inflated(body: bytes, encoding: str, max_bytes: int) -> Iterator[bytes]:
    """The pieces of the body without its content encoding, `max_bytes` together at most.

    Raises PayloadTooLarge, UnsupportedUpload or BadRequest.
    """
    if encoding not in ENCODINGS:
        raise UnsupportedUpload(f"a body may be encoded as {' or '.join(ENCODINGS)}")
    decoder, size = zlib.decompressobj(GZIP_OR_ZLIB), 0
    while not decoder.eof:
        try:
            piece = decoder.decompress(body, INFLATED_PIECE)
        except zlib.error as exc:
            raise BadRequest(f"the body is not {encoding}") from exc
        body = decoder.unconsumed_tail
        size += len(piece)
        if size > max_bytes:
            raise PayloadTooLarge(f"the decoded body is larger than {max_bytes} bytes")
        if not piece:
            break
        yield piece
    if not decoder.eof or decoder.unused_data:
        raise BadRequest(f"the body's {encoding} does not end where the body does")


def read_request(
    body: bytes, header_length: str | None, port: Port, outputs: Sequence[Port]
) -> InferRequest:
    """Parse a request for a model with one input; raises BadRequest."""
    split = _header_length(header_length, len(body))
    names = [output.name for output in outputs]
    if split == 0:  # "raw binary": the body is the value of the one input
        value = body if port.datatype == "BYTES" else floats_of_bytes(port, memoryview(body))
        return InferRequest(value, {}, dict.fromkeys(names, True))
    outline = outline_of(body[:split])
    request = validated(_Request, outline.json)
    tail = None if split is None else memoryview(body)[split:]
    parameters = request.parameters
    return InferRequest(
        _value(request.inputs[0], outline, port, tail),
        {key: value for key, value in (parameters.model_extra or {}).items() if key not in HINTS},
        _outputs(request.outputs, names, parameters.binary_data_output),
        request.id,
    )


def write_response(
    model: str, variant: str, message: InferRequest, values: Outputs, ports: Sequence[Port]
) -> tuple[bytes, Mapping[str, str]]:
    """The body of a response and its headers; `ports` are the model's outputs."""
    datatypes = {port.name: port.datatype for port in ports}
    outputs, tails = [], []
    for name, is_binary in message.outputs.items():
        value = values[name]
        output: dict[str, object] = {"name": name, "datatype": datatypes[name]}
        output["shape"] = shape_of(value)
        if is_binary:
            tails.append(bytes_of(value))
            output["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            output["data"] = json_of(value)
        outputs.append(output)
    response: dict[str, object] = {"model_name": model, "model_version": variant}
    if message.id is not None:
        response["id"] = message.id
    head = to_json(response | {"outputs": outputs}, inf_nan_mode="null")
    if not tails:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join([head, *tails]), headers


def _header_length(header: str | None, length: int) -> int | None:
    """Where the JSON ends; None when the whole body is JSON."""
    if header is None:
        return None
    if not re.fullmatch("[0-9]{1,12}", header) or int(header) > length:
        raise BadRequest(f"{HEADER_LENGTH} must be a number of at most the body's {length} bytes")
    return int(header)


def _value(sent: _Input, outline: Outline, port: Port, tail: memoryview | None) -> Floats | bytes:
    if sent.name != port.name:
        raise BadRequest(f"no input {sent.name!r}; there is {port.name!r}")
    if sent.datatype != port.datatype or tuple(sent.shape) != port.shape:
        raise BadRequest(
            f"input {port.name!r} is {port.datatype} {list(port.shape)}, "
            f"not {sent.datatype} {sent.shape}"
        )
    is_bytes = port.datatype == "BYTES"
    size = sent.parameters.binary_data_size
    if sent.data is not None:
        if size is not None or tail:
            raise BadRequest(f"input {port.name!r} has data and bytes behind the JSON")
        return _value_of_json(sent.data, outline, port)
    if tail is None:
        raise BadRequest(
            f"input {port.name!r} has no data; bytes behind the JSON need {HEADER_LENGTH}"
        )
    if size not in (None, len(tail)):  # OpenVINO's clients leave the size of a single input out
        raise BadRequest(f"binary_data_size is {size}, {len(tail)} bytes are behind the JSON")
    return element_of_bytes(port, tail) if is_bytes else floats_of_bytes(port, tail)


def _value_of_json(data: list[Any] | str, outline: Outline, port: Port) -> Floats | bytes:
    if isinstance(data, str):
        if data not in outline.long or port.datatype == "BYTES":
            raise BadRequest("inputs.0.data: Input should be a valid list")
        return floats_of_long_json(port, outline.long[data])
    if port.datatype == "BYTES":
        return element_of_json(port, data, outline)
    return floats_of_json(port, data)


def _outputs(
    requested: list[_RequestedOutput] | None, names: Sequence[str], default: bool
) -> dict[str, bool]:
    """The outputs to send, in the requested order, and whether as bytes."""
    if not requested:
        return dict.fromkeys(names, default)
    chosen = {}
    for output in requested:
        if output.name not in names:
            raise BadRequest(f"no output {output.name!r}; there are: {', '.join(names)}")
        binary = output.parameters.binary_data
        chosen[output.name] = default if binary is None else binary
    return chosen
