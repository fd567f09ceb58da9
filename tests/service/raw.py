"""A client that sends any bytes on a socket, and reads responses one at a time."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.waiting import WAIT_LIMIT_S

HOST = "Host: x\r\n"
TRICKLE_S = 0.05  # between two bytes


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict:
        return json.loads(self.body)


class RawClient:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._received = b""

    def send(self, *pieces: str | bytes) -> None:
        data = b"".join(p.encode() if isinstance(p, str) else p for p in pieces)
        self.socket.sendall(data)

    def response(self) -> Response:
        """The next response, be it an informational one."""
        while b"\r\n\r\n" not in self._received:
            self.receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (ln.partition(": ") for ln in lines)}
        size = int(headers.get("content-length", 0))
        while len(self._received) < size:
            self.receive()
        body, self._received = self._received[:size], self._received[size:]
        return Response(int(first.split()[1]), headers, body)

    def is_closed(self) -> bool:
        """Whether the server closes the connection and sends nothing before."""
        try:
            return self._received + self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def receive(self, max_bytes: int = 65536) -> None:
        data = self.socket.recv(max_bytes)
        assert data, f"closed after {self._received!r}"
        self._received += data

    @contextmanager
    def trickling(self, text: str) -> Iterator[None]:
        """Send a byte each TRICKLE_S until the block ends or the server closes the connection."""
        done = threading.Event()

        def trickle() -> None:
            for byte in text:
                if done.wait(TRICKLE_S):
                    return
                try:
                    self.send(byte)
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@contextmanager
def connected(port: int, source: str = "127.0.0.1") -> Iterator[RawClient]:
    address, own = ("127.0.0.1", port), (source, 0)
    with socket.create_connection(address, WAIT_LIMIT_S, own) as connection:
        yield RawClient(connection)


def head(method: str, path: str, **headers: object) -> str:
    """A request's head; `_` in a header's name stands for `-`."""
    lines = (f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{HOST}{''.join(lines)}\r\n"


def upload(data: bytes, path: str = "/v1/detect", **headers: object) -> bytes:
    """A complete request with an image."""
    defaults = {"Content_Type": "image/jpeg", "Content_Length": len(data)}
    return head("POST", path, **defaults | headers).encode() + data
