"""A request's body -> the bytes of one image, never more of them than allowed."""

import base64
import binascii
import re
from collections.abc import AsyncGenerator
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BadRequest, PayloadTooLarge, UnsupportedUpload

PARTS: Final = ("file", "image")
MAX_FIELDS: Final = 16  # a browser's form may carry a few; a flood of them is no upload
DATA_URL: Final = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)

ACCEPTED: Final = (
    "multipart/form-data with a part named file or image, "
    "a raw body of type image/* or application/octet-stream, "
    'or application/json {"image": "<base64>"}'
)


class JsonUpload(BaseModel):
    """The body of an application/json request."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(description="the image file in base64, with or without a data: URL prefix")


async def read_image(request: Request, max_bytes: int) -> bytes:
    """The image file in a request, not looked into.

    Raises UnsupportedUpload, PayloadTooLarge or BadRequest; ClientDisconnect as Starlette does.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_multipart = media_type == "multipart/form-data"
    is_json = media_type == "application/json"
    is_raw = media_type.startswith("image/") or media_type == "application/octet-stream"
    if not (is_multipart or is_json or is_raw):
        raise UnsupportedUpload(f"send {ACCEPTED}")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedUpload("send the body without a content encoding")
    body = await _read_body(request, max_bytes)
    if is_multipart:
        body = await _from_multipart(request.headers, body)
    elif is_json:
        body = _from_json(body)
    if not body:
        raise BadRequest("the image is empty")
    return body


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body, refused before its first byte where its announced length is too large."""
    too_large = PayloadTooLarge(f"the request body is larger than {max_bytes} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > max_bytes:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


async def _from_multipart(headers: Headers, body: bytes) -> bytes:
    boundary = parse_options_header(headers["content-type"])[1].get(b"boundary")
    if boundary is None:
        raise BadRequest("the multipart body's Content-Type names no boundary")
    if b"--" + boundary + b"--" not in body:  # the parser would drop the torn part in silence
        raise BadRequest("the multipart body ends before its closing boundary")

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(headers, stream(), max_files=1, max_fields=MAX_FIELDS)
    parser.spool_max_size = len(body)  # the body is in memory already: never write it to a disk
    try:
        form = await parser.parse()
    except MultiPartException as exc:
        raise BadRequest(f"the multipart body cannot be read: {exc.message}") from exc
    try:
        for name in PARTS:
            part = form.get(name)
            if isinstance(part, UploadFile):
                return await part.read()
            if part is not None:
                raise BadRequest(f"the part {name!r} must be a file, with a filename")
    finally:
        await form.close()
    raise BadRequest("the multipart body has no part named file or image")


def _from_json(body: bytes) -> bytes:
    try:
        text = JsonUpload.model_validate_json(body).image
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise BadRequest(f'send {{"image": "<base64>"}}; {where}: {first["msg"]}') from exc
    if prefix := DATA_URL.match(text):
        text = text[prefix.end() :]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadRequest("image is not valid base64") from exc
