"""Errors as application/problem+json (RFC 9457), or in the format of the API that was called."""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.errors import OutOfMemory, ServiceError
from service.http.api_paths import ApiPaths, PathSet

MEDIA_TYPE: Final = "application/problem+json"
CLIENT_CLOSED: Final = 499  # nginx's status for a client that disconnected; it is only logged

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
        """Handle the errors that routes raise on purpose."""
        for kind in (ServiceError, HTTPException, ClientDisconnect):
            app.add_exception_handler(kind, self.respond)

    async def respond(self, request: Request, exc: Exception) -> Response:
        """Any exception as a response; only the log says why a status is 500."""
        if isinstance(exc, ClientDisconnect):
            return Response(status_code=CLIENT_CLOSED)
        request_id = request.scope.get("state", {}).get("request_id")
        problem, headers = _problem_of(exc)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            fields = {"method": request.method, "request_id": request_id}
            log.error("the request failed", exc_info=exc, extra={"fields": fields})
        for paths, error_format in self._formats:
            if request.scope["path"] in paths:
                status = error_format.statuses.get(problem.status, problem.status)
                body = error_format.body(status, problem.detail or problem.title)
                return Response(json.dumps(body), status, headers, "application/json")
        if request_id is not None:
            problem.instance = f"urn:qyolo:request:{request_id}"
        content = problem.model_dump_json(exclude_none=True)
        return Response(content, problem.status, headers, MEDIA_TYPE)


def _problem_of(exc: Exception) -> tuple[Problem, Mapping[str, str] | None]:
    """The problem and the headers of its response."""
    if isinstance(exc, MemoryError):  # of NumPy, of a parser: the server's lack, not the client's
        exc = OutOfMemory("there is not enough memory for this request")
    match exc:
        case ServiceError() if exc.status != HTTPStatus.INTERNAL_SERVER_ERROR:
            kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(exc).__name__).lower()
            problem = Problem(
                type=f"urn:qyolo:problem:{kind}",
                title=exc.title,
                status=exc.status,
                detail=str(exc),
            )
            return problem, exc.headers
        case HTTPException():
            title = HTTPStatus(exc.status_code).phrase
            detail = None if exc.detail == title else exc.detail
            return Problem(title=title, status=exc.status_code, detail=detail), exc.headers
        case _:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            detail = "the server failed to handle this request; its log says why"
            return Problem(title=status.phrase, status=status, detail=detail), None
