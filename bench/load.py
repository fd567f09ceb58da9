"""Load on a server of this machine: so many clients at once, or so many requests a second."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

BOUNDARY = "a-boundary-of-a-bench"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP/1.1 request as bytes."""

    head: bytes
    body: bytes

    @classmethod
    def raw(cls, path: str, picture: bytes) -> "Request":
        """The picture as the body."""
        return cls._of(path, picture, "image/jpeg")

    @classmethod
    def multipart(cls, path: str, picture: bytes, name: str = "file") -> "Request":
        """The picture as a file of a form, which every server understands."""
        start = (
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; name={name}; filename=a.jpg\r\n"
            "Content-Type: image/jpeg\r\n\r\n"
        )
        body = start.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
        return cls._of(path, body, f"multipart/form-data; boundary={BOUNDARY}")

    @classmethod
    def _of(cls, path: str, body: bytes, media_type: str) -> "Request":
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return cls(head.encode(), body)


@dataclass(slots=True)
class Seen:
    """Milliseconds of the answers by status, and how long it all took."""

    ms: dict[int, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def counts(self) -> Counter[int]:
        return Counter({status: len(times) for status, times in self.ms.items()})

    @property
    def per_second(self) -> float:
        """Of the answers that succeeded."""
        return len(self.ms.get(200, [])) / self.seconds

    def percentile(self, share: float, status: int = 200) -> float:
        times = self.ms.get(status, [])
        return float(np.percentile(times, share)) if times else float("nan")

    def extend(self, other: "Seen") -> None:
        for status, times in other.ms.items():
            self.ms.setdefault(status, []).extend(times)
        self.seconds += other.seconds

    def add(self, status: int, seconds: float) -> None:
        self.ms.setdefault(status, []).append(seconds * 1000)


class Connection:
    """One kept alive, opened anew where the server closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: Request) -> int:
        """The status of the answer, once all of it is here."""
        fresh = self._streams is None
        try:
            return await self._send(request)
        except (asyncio.IncompleteReadError, ConnectionError):
            if fresh:
                raise
            self.close()  # it had idled so long that the server closed it
            return await self._send(request)

    async def _send(self, request: Request) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request.head + request.body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        else:
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def closed_loop(
    port: int, requests: Sequence[Request], clients: int, seconds: float, warm_up: float = 2.0
) -> Seen:
    """Each client asks again as soon as it is answered."""

    async def client(number: int, seen: Seen, end: float) -> None:
        connection = Connection(port)
        turn = number
        while time.perf_counter() < end:
            turn += 1
            start = time.perf_counter()
            status = await connection.send(requests[turn % len(requests)])
            seen.add(status, time.perf_counter() - start)
        connection.close()

    async def run(seconds: float) -> Seen:
        seen, start = Seen(), time.perf_counter()
        await asyncio.gather(*(client(each, seen, start + seconds) for each in range(clients)))
        seen.seconds = time.perf_counter() - start
        return seen

    asyncio.run(run(warm_up))
    return asyncio.run(run(seconds))


def open_loop(port: int, requests: Sequence[Request], rate: float, seconds: float) -> Seen:
    """Requests arrive by chance, `rate` a second, whether others are answered or not."""
    chance = random.Random(0)

    async def run() -> Seen:
        seen, idle, begun = Seen(), [], time.perf_counter()

        async def one(request: Request) -> None:
            connection = idle.pop() if idle else Connection(port)
            start = time.perf_counter()
            seen.add(await connection.send(request), time.perf_counter() - start)
            idle.append(connection)

        tasks, due, number = [], begun, 0
        while due < begun + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(requests[number % len(requests)])))
            due += chance.expovariate(rate)
            number += 1
        await asyncio.gather(*tasks)
        seen.seconds = time.perf_counter() - begun
        for connection in idle:
            connection.close()
        return seen

    return asyncio.run(run())
