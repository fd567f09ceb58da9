"""Requests to a running qyolo server."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from qyolo.errors import CommandError

LONGEST_CHANGE_S: Final = 600.0  # a new version is loaded and compared before the answer


class Unreachable(Exception):
    """No answer comes; its text is why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its whole body. retry_after_s: None where no seconds are given."""

    status: int
    reason: str
    content: bytes
    is_problem: bool
    retry_after_s: float | None

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300

    def problem(self) -> tuple[str, str]:
        """The title and the detail of an error, as far as the server names them."""
        document: dict[str, Any] = json.loads(self.content) if self.is_problem else {}
        title = str(document.get("title") or self.reason)
        return title, str(document.get("detail") or title)


class Connection:
    """A connection to a server, kept between requests."""

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        """Raises CommandError if `url` is not that of a server."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        try:
            self._connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        except ValueError as exc:
            raise CommandError(f"--server {url}: {exc}") from exc
        self._root = parts.path.rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}

    def ask(
        self, method: str, path: str, query: Mapping[str, object], jpeg: bytes | None = None
    ) -> Answer:
        """`query` is sent without what is None. Raises Unreachable."""
        sent = {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in query.items()
            if value is not None
        }
        headers = self._headers | ({} if jpeg is None else {"Content-Type": "image/jpeg"})
        is_kept = self._connection.sock is not None
        try:
            target = f"{self._root}{path}?{urlencode(sent)}"
            self._connection.request(method, target, jpeg, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            if is_kept and isinstance(exc, ConnectionError):  # it had been idle
                return self.ask(method, path, query, jpeg)
            reason = exc.strerror if isinstance(exc, OSError) else None
            raise Unreachable((reason or str(exc) or "no answer").lower()) from exc
        after = response.getheader("Retry-After", "")  # a proxy may send a date
        return Answer(
            response.status,
            response.reason or HTTPStatus(response.status).phrase,
            content,
            response.getheader("Content-Type") == "application/problem+json",
            float(after) if after.isdecimal() else None,
        )

    def close(self) -> None:
        self._connection.close()


class Client:
    """Changes what a server serves, with the API key that is named admin there."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = url
        self._connection = Connection(url, api_key, LONGEST_CHANGE_S)

    def change(self, model: str | None, action: str, **query: object) -> dict[str, Any]:
        """POST /v1/models/MODEL/ACTION, without a name of the first model.

        Raises CommandError with the server's reason.
        """
        name = model or str(self._ask("GET", "/v1/models")["model"])
        return self._ask("POST", _path(name, action), **query)

    def state(self, model: str, action: str) -> dict[str, Any]:
        """GET of the same; raises CommandError."""
        return self._ask("GET", _path(model, action))

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, path: str, **query: object) -> dict[str, Any]:
        try:
            answer = self._connection.ask(method, path, query)
            if answer.is_ok:
                document: dict[str, Any] = json.loads(answer.content)
                return document
        except (Unreachable, ValueError) as exc:
            raise CommandError(
                f"no answer of a qyolo server at {self._url}: {exc}; name it with --server"
            ) from exc
        raise CommandError(f"{self._url} answers {answer.status}: {answer.problem()[1]}")


def _path(model: str, action: str) -> str:
    return f"/v1/models/{quote(model, safe='')}/{action}"
