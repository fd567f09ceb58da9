"""An API key in a body, which is found before the body is read as a whole."""

import json
import re
from collections import deque
from collections.abc import Iterator
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

WITHIN: Final = 32 * 2**10  # bytes of a body; clients send their key before the image

# In JSON a quote within a text is escaped, so this can only be the name of a field.
JSON_FIELD: Final = re.compile(rb'"api_key"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
FORM_FIELD: Final = re.compile(
    rb'content-disposition:[^\r\n]*[; ]name="?api_key"?[ ;\r][^\r\n]*\n(?:[^\r\n]+\r\n){0,8}'
    rb"\r\n([^\r\n]*)\r\n--",
    re.IGNORECASE,
)


class BodyStart:
    """The start of a body, and the whole body again for the application."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read: deque[Message] = deque()

    async def key(self, media_type: str) -> str | None:
        """The field `api_key` of a form or of JSON within the first WITHIN bytes; None without.

        Raises ClientDisconnect.
        """
        start = b""
        while len(start) < WITHIN:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._read.append(message)
            start += message.get("body", b"")
            if not message.get("more_body", False):
                break
        is_form = media_type.lower().startswith("multipart/form-data")
        found = _in_form if is_form else _in_json
        return next(found(start[:WITHIN]), None)

    async def receive(self) -> Message:
        """ASGI's `receive`, from the body's first byte on."""
        return self._read.popleft() if self._read else await self._receive()


def _in_json(start: bytes) -> Iterator[str]:
    for found in JSON_FIELD.finditer(start):
        try:
            yield json.loads(found[1])
        except ValueError:
            continue


def _in_form(start: bytes) -> Iterator[str]:
    for found in FORM_FIELD.finditer(start):
        yield found[1].decode("latin-1")
