"""Ask a qyolo server for boxes."""

from http import HTTPStatus
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from qyolo.client import Connection, Unreachable
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
    """Requests raise Unavailable, or CommandError for an answer that trying again will not change.

    `query` has the parameters of the route; those that are None are left out.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self._connection = Connection(url, api_key, TIMEOUT_S)

    def model(self, **query: object) -> ModelInfo:
        return self._ask(ModelInfo, "GET", "/v1/models", query)

    def detect(self, jpeg: bytes, **query: object) -> DetectAnswer:
        return self._ask(DetectAnswer, "POST", "/v1/detect", query, jpeg)

    def close(self) -> None:
        self._connection.close()

    def _ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        query: dict[str, object],
        jpeg: bytes | None = None,
    ) -> T:
        try:
            answer = self._connection.ask(method, path, query, jpeg)
        except Unreachable as exc:
            raise Unavailable(str(exc)) from exc
        if answer.is_ok:
            try:
                return kind.model_validate_json(answer.content)
            except ValidationError as exc:
                raise CommandError("--server: the answer is not that of a qyolo server") from exc
        title, detail = answer.problem()
        reason = f"status {answer.status}, {title}"
        if answer.status in TEMPORARY or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unavailable(reason, answer.retry_after_s)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise CommandError(f"{reason}: set QYOLO_API_KEY or --api-key")
        raise CommandError(f"the server refuses: {reason}: {detail}")
