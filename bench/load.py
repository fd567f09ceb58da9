"""HTTP/1.1 clients on this machine: a fixed number in a closed loop, or a rate in an open loop."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

BOUNDARY: Final = "a-boundary"
MULTIPART: Final = f"multipart/form-data; boundary={BOUNDARY}"
BUSY: Final = 429
RETRY_S: Final = 1.0  # Retry-After of an overloaded server


def post(path: str, media_type: str, body: bytes, *headers: str) -> bytes:
    """A request as bytes."""
    lines = (f"Content-Type: {media_type}", f"Content-Length: {len(body)}", *headers)
    return request_head(f"POST {path} HTTP/1.1", *lines) + body


def post_jpeg(path: str, picture: bytes) -> bytes:
    """A request whose body is the picture."""
    return post(path, "image/jpeg", picture)


def post_form(path: str, picture: bytes) -> bytes:
    """A request whose body is a multipart form of one file, which every server accepts."""
    return post(path, MULTIPART, form(picture, part_headers="Content-Type: image/jpeg\r\n"))


def request_head(line: str, *headers: str) -> bytes:
    return "\r\n".join((line, "Host: localhost", *headers, "", "")).encode()


def form(data: bytes, name: str = "file", preamble: bytes = b"", part_headers: str = "") -> bytes:
    """A multipart body of one file."""
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="a.jpg"'
    start = f"--{BOUNDARY}\r\n{disposition}\r\n{part_headers}\r\n".encode()
    return preamble + start + data + f"\r\n--{BOUNDARY}--\r\n".encode()


@dataclass(slots=True)
class Responses:
    """Milliseconds of the responses by HTTP status, and the seconds that all took together."""

    ms: dict[int, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def counts(self) -> Counter[int]:
        return Counter({status: len(times) for status, times in self.ms.items()})

    @property
    def failed(self) -> int:
        return self.counts.total() - self.counts[200]

    @property
    def per_second(self) -> float:
        """Responses with status 200."""
        return self.counts[200] / self.seconds

    def percentile(self, rank: float, status: int = 200) -> float:
        """NaN if there is no response with this status."""
        times = self.ms.get(status, [])
        return float(np.percentile(times, rank)) if times else float("nan")

    def extend(self, other: "Responses") -> None:
        for status, times in other.ms.items():
            self.ms.setdefault(status, []).extend(times)
        self.seconds += other.seconds

    def add(self, status: int, seconds: float) -> None:
        self.ms.setdefault(status, []).append(seconds * 1000)


class Connection:
    """A connection that is kept alive, and opened again after the server closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> int:
        """The status of the response, after its body was read."""
        fresh = self._streams is None
        try:
            return await self._send(request)
        except (asyncio.IncompleteReadError, ConnectionError):
            if fresh:
                raise
            self.close()  # the server closed an idle connection
            return await self._send(request)

    async def _send(self, request: bytes) -> int:
        reader, writer = await self._open()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        else:
            await reader.readexactly(content_length(head))
        if b"connection: close" in head:
            self.close()
        return status_of(head)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def content_length(lower_head: bytes) -> int:
    """0 if the head of a response has no Content-Length."""
    return int(lower_head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)


def status_of(head: bytes) -> int:
    return int(head.split(b" ", 2)[1])


def closed_loop(
    port: int, requests: Sequence[bytes], clients: int, seconds: float, warm_up: float = 2.0
) -> Responses:
    """Each client sends its next request as soon as it has the response to the last.

    A client that gets 429 sends its next one after RETRY_S.
    """

    async def client(number: int, responses: Responses, end: float) -> None:
        connection = Connection(port)
        index = number
        while time.perf_counter() < end:
            index += 1
            start = time.perf_counter()
            status = await connection.send(requests[index % len(requests)])
            now = time.perf_counter()
            responses.add(status, now - start)
            if status == BUSY:
                await asyncio.sleep(min(RETRY_S, max(0.0, end - now)))
        connection.close()

    async def run(seconds: float) -> Responses:
        responses, start = Responses(), time.perf_counter()
        await asyncio.gather(*(client(each, responses, start + seconds) for each in range(clients)))
        responses.seconds = time.perf_counter() - start
        return responses

    asyncio.run(run(warm_up))
    return asyncio.run(run(seconds))


def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Responses:
    """A Poisson process of `rate` requests a second, independent of the responses."""
    chance = random.Random(0)

    async def run() -> Responses:
        responses, begun = Responses(), time.perf_counter()
        idle: list[Connection] = []

        async def send(request: bytes) -> None:
            connection = idle.pop() if idle else Connection(port)
            start = time.perf_counter()
            responses.add(await connection.send(request), time.perf_counter() - start)
            idle.append(connection)

        tasks, next_at, number = [], begun, 0
        while next_at < begun + seconds:
            await asyncio.sleep(max(0.0, next_at - time.perf_counter()))
            tasks.append(asyncio.create_task(send(requests[number % len(requests)])))
            next_at += chance.expovariate(rate)
            number += 1
        await asyncio.gather(*tasks)
        responses.seconds = time.perf_counter() - begun
        for connection in idle:
            connection.close()
        return responses

    return asyncio.run(run())
