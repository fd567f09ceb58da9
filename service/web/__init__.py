"""The page at / and the API's documentation at /docs: static files of this package.

The HTML names style sheets and scripts by relative paths, so that a proxy can serve it under any
prefix. The files of Swagger UI come from the package fastapi-swagger.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

PATHS: Final = ("/", "/docs", "/page/*")
MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
SWAGGER: Final = ("swagger-ui-bundle.js", "swagger-ui.css")

HEADERS: Final = {
    # The page may load from and send to this server only; a dropped picture is a blob.
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
    "Cache-Control": "no-cache",  # cached, but revalidated each time: updates show at once
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, and the ETag of its content."""

    content: bytes
    media_type: str
    etag: str


def add_page(app: FastAPI) -> None:
    """Add the routes, which the OpenAPI document does not list."""

    def add(path: str, name: str | None = None) -> None:
        async def respond(request: Request) -> Response:
            return _respond(request, name or request.path_params["name"])

        app.add_api_route(path, respond, methods=["GET", "HEAD"], include_in_schema=False)

    add("/", "index.html")
    add("/docs", "docs.html")
    add("/page/{name}")


@cache
def assets() -> Mapping[str, Asset]:
    """All files by name."""
    swagger = files("fastapi_swagger") / "resources"
    served = [*files(__name__).iterdir(), *(swagger / name for name in SWAGGER)]
    return {
        file.name: _read(file, media_type)
        for file in served
        if (media_type := MEDIA_TYPES.get(PurePath(file.name).suffix))
    }


def _read(file: Traversable, media_type: str) -> Asset:
    content = file.read_bytes()
    return Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:20]}"')


def _respond(request: Request, name: str) -> Response:
    asset = assets().get(name)
    if asset is None:
        raise HTTPException(404)
    headers = HEADERS | {"ETag": asset.etag}
    if _matches(request.headers.get("if-none-match", ""), asset.etag):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.media_type)


def _matches(if_none_match: str, etag: str) -> bool:
    """Whether the client has this content (RFC 9110, 13.1.2: weak comparison)."""
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in (etag, "*") for tag in tags)
