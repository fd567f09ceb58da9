"""The page at / and the API's documentation at /docs: files as they lie here, none from elsewhere.

Their HTML names style sheets and scripts by relative paths, so a proxy may put the server under any
prefix. Swagger UI comes from the package fastapi-swagger, of which only the files are used.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

PATHS: Final = ("/", "/docs", "/page/*")
MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SWAGGER: Final = ("swagger-ui-bundle.js", "swagger-ui.css")

HEADERS: Final = {
    # Nothing may load, run or be sent to but this server; a picture that was dropped is a blob.
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, but asked for every time: an update is seen at once
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, and the tag that changes with its content."""

    content: bytes
    media_type: str
    etag: str


def add_page(app: FastAPI) -> None:
    """Add the routes; the OpenAPI document does not list them."""

    async def index(request: Request) -> Response:
        return _answer(request, "index.html")

    async def docs(request: Request) -> Response:
        return _answer(request, "docs.html")

    async def asset(request: Request, name: str) -> Response:
        return _answer(request, name)

    for path, handler in (("/", index), ("/docs", docs), ("/page/{name}", asset)):
        app.add_api_route(path, handler, methods=["GET", "HEAD"], include_in_schema=False)


@cache
def assets() -> Mapping[str, Asset]:
    """Every file by its name."""
    return {file.name: _read(file) for file in _files()}


def _files() -> Iterator[Traversable]:
    yield from (file for file in files(__name__).iterdir() if _suffix(file) in MEDIA_TYPES)
    swagger = files("fastapi_swagger") / "resources"
    yield from (swagger / name for name in SWAGGER)


def _read(file: Traversable) -> Asset:
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    return Asset(content, MEDIA_TYPES[_suffix(file)], etag)


def _suffix(file: Traversable) -> str:
    return "." + file.name.rpartition(".")[2]


def _answer(request: Request, name: str) -> Response:
    asset = assets().get(name)
    if asset is None:
        raise HTTPException(404)
    headers = HEADERS | {"ETag": asset.etag}
    if _is_known(request.headers.get("if-none-match", ""), asset.etag):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.media_type)


def _is_known(if_none_match: str, etag: str) -> bool:
    """Whether the client holds this content already (RFC 9110, 13.1.2: tags compare weakly)."""
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in (etag, "*") for tag in tags)
