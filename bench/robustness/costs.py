"""What an input costs a running server: peak memory, CPU seconds, lateness of /healthz."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.load import content_length, request_head, status_of
from bench.serving import Server

PROBE: Final = request_head("GET /healthz HTTP/1.1")
EVERY_S: Final = 0.01
SETTLE_S: Final = 0.5
CLOSED: Final = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """`peak_mib`, `kept_mib`: above the memory before, at the most and at the end.

    `late_ms`: of the slowest answer of /healthz.
    """

    statuses: Counter[int]
    peak_mib: float
    kept_mib: float
    cpu_s: float
    late_ms: float
    seconds: float


def cost_of(server: Server, requests: Sequence[bytes]) -> Cost:
    """Send the requests at once, each over a connection of its own."""
    memory = _Memory(server.process.pid)
    before, cpu = memory.reset(), server.cpu_seconds()
    with _Probe(server.port) as probe:
        began = time.monotonic()
        statuses = asyncio.run(_send_all(server.port, requests))
        seconds = time.monotonic() - began
    cpu_s, peak = server.cpu_seconds() - cpu, memory.peak()
    time.sleep(SETTLE_S)
    kept = memory.now() - before
    return Cost(Counter(statuses), peak - before, kept, cpu_s, probe.slowest_s * 1000, seconds)


async def _send_all(port: int, requests: Sequence[bytes]) -> list[int]:
    return await asyncio.gather(*(_send(port, request) for request in requests))


async def _send(port: int, request: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(content_length(head))
        return status_of(head)
    except (asyncio.IncompleteReadError, ConnectionError):
        return CLOSED
    finally:
        writer.close()


class _Memory:
    """Resident memory of a process in MiB."""

    def __init__(self, pid: int) -> None:
        self._home = Path("/proc", str(pid))

    def reset(self) -> float:
        """Begin a new peak; the memory now."""
        (self._home / "clear_refs").write_text("5")
        return self.now()

    def now(self) -> float:
        return self._read("VmRSS")

    def peak(self) -> float:
        return self._read("VmHWM")

    def _read(self, name: str) -> float:
        lines = (self._home / "status").read_text().splitlines()
        return int(dict(line.split(":", 1) for line in lines)[name].split()[0]) / 1024


class _Probe:
    """Asks for /healthz every EVERY_S until the block ends."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.slowest_s = 0.0

    def __enter__(self) -> "_Probe":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._done.wait(EVERY_S):
            began = time.monotonic()
            self._socket.sendall(PROBE)
            self._socket.recv(65536)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
