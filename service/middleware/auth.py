"""Who may come in, and how often: API keys and rate limits, before a body is read."""

import math
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import RateLimited, ServiceError, Unauthorized
from service.http.client_identity import network_of
from service.http.problems import refusal
from service.http.public_paths import METRICS, is_public
from service.middleware.api_keys import Keys
from service.middleware.rate_limit import RateLimit

ANYWHERE: Final = "an unknown address"


class AccessPolicy:
    """Lets a request in by its key, or by its client's address where no keys are set."""

    def __init__(self, keys: Keys, rate_limit: RateLimit | None) -> None:
        self._keys = keys
        self._rate_limit = rate_limit

    def __bool__(self) -> bool:
        """Whether it keeps anyone out."""
        return bool(self._keys) or self._rate_limit is not None

    @property
    def wants_keys(self) -> bool:
        return bool(self._keys)

    def admit(self, scope: Scope, presented: str | None) -> None:
        """Raise Unauthorized or RateLimited, or keep the key's name for the log.

        A guess counts for the address that it comes from.
        """
        state = scope.setdefault("state", {})
        if not self._keys:
            self._take(f"address {_address(scope)}")
            return
        name = None if presented is None else self._keys.name_of(presented)
        if name is None:
            self._take(f"address {_address(scope)}")
            raise Unauthorized(
                "send an API key as Authorization: Bearer or X-API-Key"
                if presented is None
                else "the API key is not known here"
            )
        state["key"] = name
        self._take(f"key {name}")

    def _take(self, client: str) -> None:
        if self._rate_limit is None:
            return
        wait_s = math.ceil(self._rate_limit.take(client))
        if wait_s:
            raise RateLimited(f"too many requests; the next one may come in {wait_s} s", wait_s)


class Auth:
    """ASGI middleware: asks the gate about each request, unless its path is public.

    At a path that is `late` a key may come in the query or the body. Where no header has one, the
    endpoint must ask the gate itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        gate: AccessPolicy,
        open_metrics: bool,
        late: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self._app = app
        self._gate = gate
        self._open_metrics = open_metrics
        self._late = late

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_open(scope["path"]):
            presented = key_of(Headers(scope=scope))
            if presented is not None or not self._late(scope["path"]):
                try:
                    self._gate.admit(scope, presented)
                except ServiceError as exc:
                    await refusal(scope, exc)(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return is_public(path) or (path == METRICS and self._open_metrics)


def key_of(headers: Headers) -> str | None:
    """The key that a request's headers present."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return headers.get("x-api-key")


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return network_of(client[0]) if client else ANYWHERE
