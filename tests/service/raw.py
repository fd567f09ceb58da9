"""A client that sends what it likes: bytes on a socket, and answers as they come."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.fakes import PATIENCE_S

HOST = "Host: x\r\n"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict:
        return json.loads(self.body)


class Raw:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._received = b""

    def send(self, *pieces: str | bytes) -> None:
        data = b"".join(p.encode() if isinstance(p, str) else p for p in pieces)
        self.socket.sendall(data)

    def answer(self) -> Answer:
        """The next answer; an informational one counts too."""
        head, _, rest = self._read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (ln.partition(": ") for ln in lines)}
        size = int(headers.get("content-length", 0))
        self._received = rest
        while len(self._received) < size:
            self.receive()
        body, self._received = self._received[:size], self._received[size:]
        return Answer(int(first.split()[1]), headers, body)

    def is_closed(self) -> bool:
        """Whether the server ends the connection, and says no more before."""
        try:
            return self._received + self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def receive(self, most: int = 65536) -> None:
        """Take up to so many bytes of an answer."""
        data = self.socket.recv(most)
        assert data, f"closed after {self._received!r}"
        self._received += data

    def _read_until(self, end: bytes) -> bytes:
        while end not in self._received:
            self.receive()
        return self._received


@contextmanager
def connected(port: int) -> Iterator[Raw]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        yield Raw(connection)


def head(method: str, path: str, **headers: object) -> str:
    """A request's head; `_` in a header's name stands for `-`."""
    lines = (f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{HOST}{''.join(lines)}\r\n"


def upload(data: bytes, path: str = "/v1/detect", **headers: object) -> bytes:
    """A whole request that carries an image."""
    given = {"Content_Type": "image/jpeg", "Content_Length": len(data)} | headers
    return head("POST", path, **given).encode() + data
