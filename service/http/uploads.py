"""The body of a request -> the bytes of one image."""

import asyncio
import binascii
import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ConfigDict, Field
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BadRequest, UnsupportedUpload
from service.http.json_outline import outline_of
from service.http.validation import BoundedObject, validated
from service.inference.admission import Body

PARTS: Final = ("file", "image")
MAX_FIELDS: Final = 16  # beside the file; a browser's form has a few
DATA_URL: Final = re.compile(rb"data:[^,]{0,200};base64,", re.IGNORECASE)
BASE64_PIECE: Final = 2**16  # characters that are decoded at a time, since that holds the GIL
SMALL: Final = 2**16  # bytes that are parsed in the event loop: a thread would take longer

ACCEPTED: Final = (
    "multipart/form-data with a part named file or image, "
    "a raw body of type image/* or application/octet-stream, "
    'or application/json {"image": "<base64>"}'
)


T = TypeVar("T")


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
        data = await parsed(data, _image_in_json)
    return _not_empty(data)


async def read_form(request: Request, body: Body) -> Form:
    """The parts of a multipart request; raises what `read_image` raises."""
    if _media_type(request) != "multipart/form-data":
        raise UnsupportedUpload("send multipart/form-data")
    _refuse_encodings(request)
    _expect(request, body)
    async with body.arriving():
        return await _from_multipart(request.headers, _counted(request, body))


def image_of(form: Form) -> bytes:
    """The image file in a form; raises BadRequest, also for text that has the name of a part."""
    for name in PARTS:
        if name in form.fields:
            raise BadRequest(f"the part {name!r} must be a file, with a filename")
    for name in PARTS:
        if name in form.files:
            return _not_empty(form.files[name])
    raise BadRequest("the multipart body has no part named file or image")


def from_base64(text: str | bytes) -> bytes:
    """Decode base64, with or without a data: URL prefix; raises BadRequest."""
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
        prefix = DATA_URL.match(data)
        return b"".join(_pieces_of_base64(data, prefix.end() if prefix else 0))
    except ValueError as exc:
        raise BadRequest("image is not valid base64") from exc


def _pieces_of_base64(data: bytes, start: int) -> Iterator[bytes]:
    for at in range(start, len(data), BASE64_PIECE):
        piece = binascii.a2b_base64(data[at : at + BASE64_PIECE], strict_mode=True)
        if at + BASE64_PIECE < len(data) and len(piece) < BASE64_PIECE // 4 * 3:
            raise ValueError("padding before the end")
        yield piece


async def parsed(data: bytes, parse: Callable[[bytes], T]) -> T:
    """What `parse` makes of the body; in a thread if that may take long."""
    return parse(data) if len(data) <= SMALL else await asyncio.to_thread(parse, data)


async def read_body(request: Request, body: Body) -> bytes:
    """The whole body, which `body` counts as it arrives.

    A declared length that cannot be held is refused before the first byte. Raises PayloadTooLarge,
    Overloaded, also while it reads, and ClientDisconnect.
    """
    _expect(request, body)
    async with body.arriving():
        return b"".join([chunk async for chunk in _counted(request, body)])


def _expect(request: Request, body: Body) -> None:
    declared = request.headers.get("content-length", "0")
    body.expect(int(declared) if declared.isdecimal() else sys.maxsize)


async def _counted(request: Request, body: Body) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        body.hold(size)
        yield chunk


def _image_in_json(data: bytes) -> bytes:
    outline = outline_of(data)
    upload = validated(JsonUpload, outline.json, prefix='send {"image": "<base64>"}; ')
    return from_base64(outline.text(upload.image))


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _refuse_encodings(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedUpload("send the body without a content encoding")


def _not_empty(image: bytes) -> bytes:
    if not image:
        raise BadRequest("the image is empty")
    return image


class _FormParser(MultiPartParser):
    """Starlette's, which does not tell a form without its end from a complete one."""

    spool_max_size = sys.maxsize  # the body is counted in memory; never write it to a disk
    is_complete = False

    def on_end(self) -> None:
        self.is_complete = True


async def _from_multipart(headers: Headers, chunks: AsyncGenerator[bytes, None]) -> Form:
    if parse_options_header(headers["content-type"])[1].get(b"boundary") is None:
        raise BadRequest("the multipart body's Content-Type names no boundary")

    async def checked() -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not parser.is_complete:
            raise BadRequest("the multipart body ends before its closing boundary")

    parser = _FormParser(headers, checked(), max_files=1, max_fields=MAX_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as exc:
        raise BadRequest(f"the multipart body cannot be read: {exc.message}") from exc
    try:
        files = {name: await p.read() for name, p in form.items() if isinstance(p, UploadFile)}
    finally:
        await form.close()
    return Form(files, {name: part for name, part in form.items() if isinstance(part, str)})
