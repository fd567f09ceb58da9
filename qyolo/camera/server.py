"""Ask a qyolo server for boxes."""

import http.client
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, ValidationError

from qyolo.errors import CommandError
from service.http.schemas import DetectAnswer, ModelInfo

TIMEOUT_S: Final = 10.0
TEMPORARY: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

T = TypeVar("T", bound=BaseModel)


class Unavailable(Exception):
    """The server does not answer now; `retry_after_s` is when it wants to be asked again."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class DetectionServer:
    """A server, over one connection that is kept.

    Requests raise Unavailable, or CommandError for an answer that trying again will not change.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        parts = urlsplit(url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        try:
            self._connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        except ValueError as exc:
            raise CommandError(f"--server {url}: {exc}") from exc
        self._root = parts.path.rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}

    def model(self, **query: object) -> ModelInfo:
        """Of `query`, the parameters of the route, those that are None are left out, as below."""
        return self._ask(ModelInfo, "GET", f"/v1/models?{_encoded(query)}")

    def detect(self, jpeg: bytes, **query: object) -> DetectAnswer:
        return self._ask(DetectAnswer, "POST", f"/v1/detect?{_encoded(query)}", jpeg)

    def close(self) -> None:
        self._connection.close()

    def _ask(self, kind: type[T], method: str, path: str, body: bytes | None = None) -> T:
        headers = self._headers | ({} if body is None else {"Content-Type": "image/jpeg"})
        is_kept = self._connection.sock is not None
        try:
            self._connection.request(method, self._root + path, body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            if is_kept and isinstance(exc, ConnectionError):
                return self._ask(
                    kind, method, path, body
                )  # the server has closed an idle connection
            reason = exc.strerror if isinstance(exc, OSError) else None
            raise Unavailable((reason or str(exc) or "no answer").lower()) from exc
        if answer.status == HTTPStatus.OK:
            try:
                return kind.model_validate_json(content)
            except ValidationError as exc:
                raise CommandError("--server: the answer is not that of a qyolo server") from exc
        is_problem = answer.getheader("Content-Type") == "application/problem+json"
        problem = json.loads(content) if is_problem else {}
        reason = f"status {answer.status}, {problem.get('title', answer.reason)}"
        if answer.status in TEMPORARY or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            after = answer.getheader("Retry-After", "")  # a proxy may send a date
            raise Unavailable(reason, float(after) if after.isdecimal() else None)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise CommandError(f"{reason}: set QYOLO_API_KEY or --api-key")
        raise CommandError(f"the server refuses: {reason}: {problem.get('detail', path)}")


def _encoded(query: Mapping[str, object]) -> str:
    return urlencode({name: value for name, value in query.items() if value is not None})
