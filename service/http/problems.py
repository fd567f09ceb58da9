"""Errors as application/problem+json (RFC 9457), or in the format of the API that was called."""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError
from service.http.api_paths import ApiPaths, PathSet

MEDIA_TYPE: Final = "application/problem+json"
CLIENT_CLOSED: Final = 499  # nginx's status for a client that disconnected; nobody receives it

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """A problem document; `type` names the kind of problem, `instance` the request that had it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    instance: str | None = None


class ErrorResponses:
    """The responses to errors; the request's path decides their format."""

    def __init__(self, apis: Iterable[ApiPaths]) -> None:
        self._formats = [
            (PathSet(api.paths), api.error_format) for api in apis if api.error_format is not None
        ]

    def add_handlers(self, app: FastAPI) -> None:
        """Handle the errors that a route raises; UnhandledErrors does the others."""

        @app.exception_handler(ServiceError)
        async def service_error(request: Request, exc: ServiceError) -> Response:
            return self.of(request.scope, exc)

        @app.exception_handler(RequestValidationError)
        async def invalid_request(request: Request, exc: RequestValidationError) -> Response:
            errors = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
            problem = Problem(
                type="urn:qyolo:problem:invalid-request",
                title="Invalid request",
                status=HTTPStatus.UNPROCESSABLE_ENTITY,
                detail="; ".join(errors),
            )
            return self._response(request.scope, problem)

        @app.exception_handler(HTTPException)
        async def http_error(request: Request, exc: HTTPException) -> Response:
            title = HTTPStatus(exc.status_code).phrase
            detail = None if exc.detail == title else exc.detail
            problem = Problem(title=title, status=exc.status_code, detail=detail)
            return self._response(request.scope, problem, exc.headers)

        @app.exception_handler(ClientDisconnect)
        async def client_gone(request: Request, exc: ClientDisconnect) -> Response:
            return Response(status_code=CLIENT_CLOSED)

    def of(self, scope: Scope, exc: Exception) -> Response:
        """A ServiceError tells its message; any other error, and status 500, is only logged."""
        if not isinstance(exc, ServiceError) or exc.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._internal_error(scope, exc)
        kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(exc).__name__).lower()
        problem = Problem(
            type=f"urn:qyolo:problem:{kind}", title=exc.title, status=exc.status, detail=str(exc)
        )
        return self._response(scope, problem, exc.headers)

    def _internal_error(self, scope: Scope, exc: Exception) -> Response:
        fields = {"method": scope["method"], "request_id": _request_id(scope)}
        log.error("the request failed", exc_info=exc, extra={"fields": fields})
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        detail = "the server failed to handle this request; its log says why"
        return self._response(scope, Problem(title=status.phrase, status=status, detail=detail))

    def _response(
        self, scope: Scope, problem: Problem, headers: Mapping[str, str] | None = None
    ) -> Response:
        for paths, error_format in self._formats:
            if scope["path"] in paths:
                status = error_format.statuses.get(problem.status, problem.status)
                body = error_format.body(status, problem.detail or problem.title)
                return Response(json.dumps(body), status, headers, "application/json")
        if (request_id := _request_id(scope)) is not None:
            problem.instance = f"urn:qyolo:request:{request_id}"
        return Response(
            problem.model_dump_json(exclude_none=True), problem.status, headers, MEDIA_TYPE
        )


class UnhandledErrors:
    """ASGI middleware: responds to an error that no handler knows.

    Starlette's own raises the error again and stands outside of all other middleware: the error
    would be logged twice, and the response would lack their headers.
    """

    def __init__(self, app: ASGIApp, errors: ErrorResponses) -> None:
        self._app = app
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as exc:
            if scope["type"] != "http" or started:
                raise
            await self._errors.of(scope, exc)(scope, receive, send)


def _request_id(scope: Scope) -> str | None:
    request_id: str | None = scope.get("state", {}).get("request_id")
    return request_id
