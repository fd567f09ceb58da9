"""The client's address as a trusted proxy reports it."""

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.http.client_identity import address_of


class ForwardedClient:
    """ASGI middleware: uvicorn's for X-Forwarded-For and -Proto, but a client is an address.

    uvicorn takes any text for one. A text that is no address is dropped: the client is the proxy.
    """

    def __init__(self, app: ASGIApp, trusted: str) -> None:
        self._app = app
        self._forwarded = ProxyHeadersMiddleware(self._checked, trusted)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["peer"] = scope.get("client")
        await self._forwarded(scope, receive, send)  # type: ignore[arg-type]

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            peer = scope["state"].pop("peer")
            if (client := scope.get("client")) and client != peer:
                address = address_of(client[0])
                scope["client"] = peer if address is None else (address, client[1])
        await self._app(scope, receive, send)
