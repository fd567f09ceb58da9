"""Every error -> application/problem+json (RFC 9457), or the form of a protocol of others."""

import json
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError
from service.http.error_formats import error_format_of

MEDIA_TYPE: Final = "application/problem+json"
CLIENT_CLOSED: Final = 499  # as nginx logs a client that did not wait; nobody receives it

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """A problem document; `type` names the kind of problem, `instance` the request that had it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    instance: str | None = None


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error that a route raises with a problem document."""

    @app.exception_handler(ServiceError)
    async def service_error(request: Request, exc: ServiceError) -> Response:
        return refusal(request.scope, exc)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, exc: RequestValidationError) -> Response:
        faults = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        return _response(
            request.scope,
            Problem(
                type="urn:qyolo:problem:invalid-request",
                title="Invalid request",
                status=HTTPStatus.UNPROCESSABLE_ENTITY,
                detail="; ".join(faults),
            ),
        )

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, exc: HTTPException) -> Response:
        title = HTTPStatus(exc.status_code).phrase
        detail = None if exc.detail == title else exc.detail
        problem = Problem(title=title, status=exc.status_code, detail=detail)
        return _response(request.scope, problem, exc.headers)

    @app.exception_handler(ClientDisconnect)
    async def client_gone(request: Request, exc: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_CLOSED)


def refusal(scope: Scope, exc: ServiceError) -> Response:
    """The answer to a request that ended in this error."""
    if exc.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unforeseen(scope, exc)
    kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(exc).__name__).lower()
    problem = Problem(
        type=f"urn:qyolo:problem:{kind}", title=exc.title, status=exc.status, detail=str(exc)
    )
    return _response(scope, problem, exc.headers)


class UnhandledErrors:
    """ASGI middleware: an error that no handler knows becomes a 500 that tells nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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
            await _unforeseen(scope, exc)(scope, receive, send)


def _unforeseen(scope: Scope, exc: Exception) -> Response:
    fields = {"method": scope["method"], "request_id": scope.get("state", {}).get("request_id")}
    log.error("the request failed", exc_info=exc, extra={"fields": fields})
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "the server failed to answer this request; its log says why"
    return _response(scope, Problem(title=status.phrase, status=status, detail=detail))


def _response(scope: Scope, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    dialect = error_format_of(scope["path"])
    if dialect is not None:
        status = dialect.statuses.get(problem.status, problem.status)
        body = dialect.body(status, problem.detail or problem.title)
        return Response(json.dumps(body), status, headers, "application/json")
    document = problem.model_copy(update={"instance": _instance(scope)})
    return Response(
        document.model_dump_json(exclude_none=True), problem.status, headers, MEDIA_TYPE
    )


def _instance(scope: Scope) -> str | None:
    request_id = scope.get("state", {}).get("request_id")
    return None if request_id is None else f"urn:qyolo:request:{request_id}"
