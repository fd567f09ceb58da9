"""Requests of the command line to a running server."""

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from qyolo.errors import CommandError

TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Client:
    """A server's address, and the API key that is named admin there."""

    url: str
    key: str | None

    def change(self, model: str | None, action: str, **query: object) -> dict[str, Any]:
        """POST /v1/models/MODEL/ACTION, without a name of the first model.

        Raises CommandError with the server's reason.
        """
        name = model or str(self._request("GET", "/v1/models")["model"])
        sent = {
            key: str(value).lower() if isinstance(value, bool) else value
            for key, value in query.items()
        }
        return self._request("POST", f"{_path(name, action)}?{urlencode(sent)}")

    def state(self, model: str, action: str) -> dict[str, Any]:
        """GET of the same; raises CommandError."""
        return self._request("GET", _path(model, action))

    def _request(self, method: str, path: str) -> dict[str, Any]:
        headers = {} if self.key is None else {"X-API-Key": self.key}
        try:
            request = Request(self.url.rstrip("/") + path, method=method, headers=headers)
            with urlopen(request, timeout=TIMEOUT_S) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except HTTPError as exc:
            raise CommandError(f"{self.url} answers {exc.code}: {_detail(exc)}") from exc
        except (URLError, OSError, ValueError) as exc:
            reason = exc.reason if isinstance(exc, URLError) else exc
            raise CommandError(
                f"no answer of a qyolo server at {self.url}: {reason}; name it with --server"
            ) from exc


def _path(model: str, action: str) -> str:
    return f"/v1/models/{quote(model, safe='')}/{action}"


def _detail(error: HTTPError) -> str:
    with error:
        try:
            problem = json.load(error)
            return str(problem.get("detail") or problem["title"])
        except (ValueError, KeyError, AttributeError, OSError):
            return error.reason
