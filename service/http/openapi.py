"""The parts of the OpenAPI document that FastAPI cannot derive from signatures."""

from typing import Any, Final

from fastapi import FastAPI

from service.http.client_identity import CLIENT_HEADER
from service.http.exchange import DEADLINE_HEADER, INSTEAD_OF, VARIANT_HEADER
from service.http.params import MODEL_MEANING
from service.http.problems import MEDIA_TYPE, Problem
from service.http.uploads import JsonUpload

_BINARY: Final = {"type": "string", "format": "binary"}

_DEADLINE: Final = {
    "name": DEADLINE_HEADER,
    "in": "header",
    "description": "milliseconds in which the answer is needed; a request that would wait too long "
    "for it gets status 429 at once",
    "schema": {"type": "integer", "minimum": 1},
}

MODEL: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "model",
            "in": "query",
            "description": MODEL_MEANING,
            "schema": {"type": "string"},
        }
    ]
}

IMAGE_BODY: Final[dict[str, Any]] = {
    "parameters": [_DEADLINE],
    "requestBody": {
        "required": True,
        "description": "one JPEG, PNG, WebP or BMP image, in one of these forms",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": _BINARY, "image": _BINARY},
                    "anyOf": [{"required": ["file"]}, {"required": ["image"]}],
                }
            },
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
            "application/json": {"schema": JsonUpload.model_json_schema()},
        },
    },
}

CLIENT: Final[dict[str, Any]] = {
    "parameters": [
        _DEADLINE,
        {
            "name": CLIENT_HEADER,
            "in": "header",
            "description": "identifies the client, which keeps its variant in an A/B split",
            "schema": {"type": "string"},
        },
    ]
}

PICTURE: Final[dict[str, Any]] = {
    "description": "the boxes; with Accept: image/jpeg or image/png the image with the boxes drawn",
    "headers": {
        VARIANT_HEADER: {
            "description": "the variant that was used",
            "schema": {"type": "string"},
        },
        INSTEAD_OF: {
            "description": "the variant whose engine has failed, if this one answers for it",
            "schema": {"type": "string"},
        },
    },
    "content": {"image/jpeg": {"schema": _BINARY}, "image/png": {"schema": _BINARY}},
}

BOTH_SIDES: Final[dict[str, Any]] = {
    "description": "how both agree; with Accept: image/jpeg or image/png both drawn side by side",
    "content": PICTURE["content"],
}

_RETRY: Final = {
    "Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}},
}

_KEY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

_PROBLEMS: Final = {
    400: "the body cannot be read",
    401: "no API key, or an unknown one",
    403: "the API key may not do this",
    404: "no such model, variant or report",
    405: "the method is not allowed here",
    406: "no acceptable media type",
    408: "the body arrived too slowly",
    409: "the change is not made; the served model stays",
    413: "the body or the image is too large",
    415: "not an image, or an unsupported form of upload",
    422: "a corrupt image or an invalid parameter",
    429: "the request would wait too long, or the client exceeds its rate limit",
    500: "internal error",
    503: "the model is not ready",
    504: "the response took too long",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may return these statuses."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {
        status: {"description": _PROBLEMS[status], "content": content}
        | ({"headers": _RETRY} if status in (429, 503) else {})
        for status in statuses
    }


def document_keys(app: FastAPI) -> None:
    """Declare in the OpenAPI document that an API key is needed, in one of two headers."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document.setdefault("components", {})["securitySchemes"] = _KEY_SCHEMES
        document["security"] = [{name: []} for name in _KEY_SCHEMES]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
