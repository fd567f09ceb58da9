"""API keys and rate limits, checked before the body is read."""

import math
from collections.abc import Container, Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import RateLimited, Unauthorized
from service.http.client_identity import network_of
from service.middleware.api_keys import digest_of
from service.middleware.rate_limit import RateLimit

UNKNOWN_ADDRESS: Final = "unknown"


class AccessPolicy:
    """Admits a request by its API key, or by its client's address where no keys are set.

    `keys`: the SHA-256 of each secret -> the key's name. Digests are looked up, so the time of a
    lookup reveals nothing about a secret.
    """

    def __init__(self, keys: Mapping[bytes, str], rate_limit: RateLimit | None) -> None:
        self._keys = keys
        self._rate_limit = rate_limit

    @property
    def needs_key(self) -> bool:
        return bool(self._keys)

    @property
    def admits_all(self) -> bool:
        return not self._keys and self._rate_limit is None

    def admit(self, scope: Scope, presented: str | None) -> None:
        """Note the name of the presented key in the scope; raises Unauthorized or RateLimited.

        A request without a valid key counts against the rate of its address.
        """
        name = None if presented is None else self._keys.get(digest_of(presented))
        if name is not None:
            scope.setdefault("state", {})["key"] = name
            self._count(f"key {name}")
            return
        client = scope.get("client")
        self._count(f"address {network_of(client[0]) if client else UNKNOWN_ADDRESS}")
        if self._keys:
            raise Unauthorized(
                "send an API key as Authorization: Bearer or X-API-Key"
                if presented is None
                else "the API key is unknown"
            )

    def admit_key_of(self, request: Request, presented: str | None) -> None:
        """Admit by a key of the body or the query; an empty one counts as none.

        If a header has a key, `Auth` has checked it, and this does nothing. Raises what `admit`
        raises.
        """
        if key_in_headers(request.headers) is None:
            self.admit(request.scope, presented or None)

    def _count(self, client: str) -> None:
        wait_s = 0 if self._rate_limit is None else math.ceil(self._rate_limit.take(client))
        if wait_s:
            raise RateLimited(f"too many requests; try again in {wait_s} s", wait_s)


class Auth:
    """ASGI middleware: applies the policy to every request whose path is not public.

    On the paths `key_in_request` the API key may be in the body or the query. Where no header has
    one, the route's handler applies the policy.
    """

    def __init__(
        self,
        app: ASGIApp,
        policy: AccessPolicy,
        public: Container[str] = (),
        key_in_request: Container[str] = (),
    ) -> None:
        self._app = app
        self._policy = policy
        self._public = public
        self._key_in_request = key_in_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._public:
            presented = key_in_headers(Headers(scope=scope))
            if presented is not None or scope["path"] not in self._key_in_request:
                self._policy.admit(scope, presented)
        await self._app(scope, receive, send)


def key_in_headers(headers: Headers) -> str | None:
    """The API key of Authorization: Bearer, else of X-API-Key."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return headers.get("x-api-key")
