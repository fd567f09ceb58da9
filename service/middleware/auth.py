"""API keys and rate limits, checked before the body is read as a whole."""

import math
from collections.abc import Container, Mapping
from typing import Final

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import RateLimited, Unauthorized
from service.http.client_identity import network_of
from service.middleware.api_keys import digest_of
from service.middleware.key_in_body import WITHIN, BodyStart
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
        name = self._name_of(presented)
        if name is not None:
            self._admit_key(scope, name)
            return
        self.count_address(scope)
        if self._keys:
            raise _unauthorized(presented, "as Authorization: Bearer or X-API-Key")

    def count_address(self, scope: Scope) -> None:
        """Count a request against the rate of its address; raises RateLimited."""
        self._count(_address(scope))

    def admit_counted(self, scope: Scope, presented: str | None) -> None:
        """`admit` for a request whose address has been counted, because its body has the key.

        With a valid key it counts against the rate of the key instead.
        """
        name = self._name_of(presented)
        if name is None:
            where = f"in a header, in the query or in the first {WITHIN} bytes of the body"
            raise _unauthorized(presented, where)
        if self._rate_limit is not None:
            self._rate_limit.give_back(_address(scope))
        self._admit_key(scope, name)

    def _name_of(self, presented: str | None) -> str | None:
        return None if presented is None else self._keys.get(digest_of(presented))

    def _admit_key(self, scope: Scope, name: str) -> None:
        scope.setdefault("state", {})["key"] = name
        self._count(f"key {name}")

    def _count(self, client: str) -> None:
        wait_s = 0 if self._rate_limit is None else math.ceil(self._rate_limit.take(client))
        if wait_s:
            raise RateLimited(f"too many requests; try again in {wait_s} s", wait_s)


class Auth:
    """ASGI middleware: applies the policy to every request whose path is not public.

    On the paths `key_in_request` the API key may also be in the query, or in the start of a body,
    of which no more is read before. The rate of the address is asked before any of it.
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
            headers = Headers(scope=scope)
            presented = key_in_headers(headers)
            in_request = presented is None and scope["path"] in self._key_in_request
            if in_request:
                presented = QueryParams(scope["query_string"]).get("api_key") or None
            has_body = scope["method"] == "POST" and self._policy.needs_key
            if in_request and presented is None and has_body:
                self._policy.count_address(scope)
                body = BodyStart(receive)
                key = await body.key(headers.get("content-type", ""))
                self._policy.admit_counted(scope, key or None)
                receive = body.receive
            else:
                self._policy.admit(scope, presented)
        await self._app(scope, receive, send)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return f"address {network_of(client[0]) if client else UNKNOWN_ADDRESS}"


def _unauthorized(presented: str | None, where: str) -> Unauthorized:
    return Unauthorized(
        f"send an API key {where}" if presented is None else "the API key is unknown"
    )


def key_in_headers(headers: Headers) -> str | None:
    """The API key of Authorization: Bearer, else of X-API-Key."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return headers.get("x-api-key")
