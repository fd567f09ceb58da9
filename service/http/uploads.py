"""The body of a request -> the bytes of one image."""

import base64
import binascii
import re
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ConfigDict, Field
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BadRequest, UnsupportedUpload
from service.http.validation import BoundedObject, validated
from service.inference.admission import Body

PARTS: Final = ("file", "image")
MAX_FIELDS: Final = 16  # beside the file; a browser's form has a few
DATA_URL: Final = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)

ACCEPTED: Final = (
    "multipart/form-data with a part named file or image, "
    "a raw body of type image/* or application/octet-stream, "
    'or application/json {"image": "<base64>"}'
)


class JsonUpload(BoundedObject):
    """The body of an application/json request."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(description="the image file in base64, with or without a data: URL prefix")


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart body: the parts that have a filename, and the text of the others."""

    files: Mapping[str, bytes]
    fields: Mapping[str, str]


async def read_image(request: Request, body: Body) -> bytes:
    """The image file in a request, unchecked.

    Raises UnsupportedUpload, BadRequest and what `read_body` raises.
    """
    media_type = _media_type(request)
    if media_type == "multipart/form-data":
        return image_of(await read_form(request, body))
    is_json = media_type == "application/json"
    is_raw = media_type.startswith("image/") or media_type == "application/octet-stream"
    if not (is_json or is_raw):
        raise UnsupportedUpload(f"send {ACCEPTED}")
    _refuse_encodings(request)
    data = await read_body(request, body)
    if is_json:
        upload = validated(JsonUpload, data, prefix='send {"image": "<base64>"}; ')
        data = from_base64(upload.image)
    return _not_empty(data)


async def read_form(request: Request, body: Body) -> Form:
    """The parts of a multipart request; raises what `read_image` raises."""
    if _media_type(request) != "multipart/form-data":
        raise UnsupportedUpload("send multipart/form-data")
    _refuse_encodings(request)
    return await _from_multipart(request.headers, await read_body(request, body))


def image_of(form: Form) -> bytes:
    """The image file in a form; raises BadRequest."""
    for name in PARTS:
        if name in form.files:
            return _not_empty(form.files[name])
        if name in form.fields:
            raise BadRequest(f"the part {name!r} must be a file, with a filename")
    raise BadRequest("the multipart body has no part named file or image")


def from_base64(text: str) -> bytes:
    """Decode base64, with or without a data: URL prefix; raises BadRequest."""
    if prefix := DATA_URL.match(text):
        text = text[prefix.end() :]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadRequest("image is not valid base64") from exc


async def read_body(request: Request, body: Body) -> bytes:
    """The whole body, which `body` counts as it arrives.

    A declared length that cannot be held is refused before the first byte. Raises PayloadTooLarge,
    Overloaded, and ClientDisconnect.
    """
    declared = request.headers.get("content-length", "0")
    body.expect(int(declared) if declared.isdecimal() else sys.maxsize)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        body.hold(size)
        chunks.append(chunk)
    return b"".join(chunks)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _refuse_encodings(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedUpload("send the body without a content encoding")


def _not_empty(image: bytes) -> bytes:
    if not image:
        raise BadRequest("the image is empty")
    return image


async def _from_multipart(headers: Headers, body: bytes) -> Form:
    boundary = parse_options_header(headers["content-type"])[1].get(b"boundary")
    if boundary is None:
        raise BadRequest("the multipart body's Content-Type names no boundary")
    # The parser would drop an incomplete part without an error.
    if b"--" + boundary + b"--" not in body:
        raise BadRequest("the multipart body ends before its closing boundary")

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(headers, stream(), max_files=1, max_fields=MAX_FIELDS)
    parser.spool_max_size = len(body)  # the body is in memory; never write it to a disk
    try:
        form = await parser.parse()
    except MultiPartException as exc:
        raise BadRequest(f"the multipart body cannot be read: {exc.message}") from exc
    try:
        files = {name: await p.read() for name, p in form.items() if isinstance(p, UploadFile)}
    finally:
        await form.close()
    return Form(files, {name: part for name, part in form.items() if isinstance(part, str)})
