"""h11's connection with limits on headers that arrive in one piece.

h11 limits incomplete events only: headers that arrive complete may be of any size.
"""

from typing import Any, Final

import h11

MAX_HEADER_BYTES: Final = 16 * 2**10
MAX_HEADERS: Final = 100
MAX_TARGET_BYTES: Final = 8 * 2**10
CLOSE: Final = (b"connection", b"close")


class LimitedConnection(h11.Connection):
    """The server's side of a connection."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEADER_BYTES)
        self.closes_after_response = False

    def next_event(self) -> Any:
        event = super().next_event()
        if type(event) is h11.Request:
            if len(event.target) > MAX_TARGET_BYTES:
                raise h11.RemoteProtocolError("URL too long", error_status_hint=414)
            size = sum(len(name) + len(value) for name, value in event.headers)
            if size > MAX_HEADER_BYTES or len(event.headers) > MAX_HEADERS:
                raise h11.RemoteProtocolError("headers too large", error_status_hint=431)
            # A proxy before this server may have taken the other of the two for the body's end
            # (RFC 9112, 6.1).
            names = {name for name, _ in event.headers}
            if names.issuperset((b"content-length", b"transfer-encoding")):
                self.closes_after_response = True
        return event

    def send(self, event: Any) -> Any:
        """A final response in place of 100 Continue closes the connection too.

        The client may or may not send its body then, and the server could not tell the body from
        the next request.
        """
        closes = self.closes_after_response or self.they_are_waiting_for_100_continue
        if type(event) is h11.Response and closes and CLOSE not in event.headers:
            headers = [*event.headers, CLOSE]
            event = h11.Response(
                status_code=event.status_code, headers=headers, reason=event.reason
            )
        return super().send(event)
