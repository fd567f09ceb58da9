"""ASGI middleware: what tells browsers to trust an answer for no more than it is."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HTML: Final = "text/html"


class SecurityHeaders:
    """No answer's type is guessed, and no page is shown in a frame of another."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if headers.get("content-type", "").startswith(HTML):
                    headers["X-Frame-Options"] = "DENY"
            await send(message)

        await self._app(scope, receive, secured if scope["type"] == "http" else send)
