"""Tens of thousands of hostile requests against a real server, and what is left of it.

    .venv/bin/python bench/hostile.py [MODEL_FOLDER] [--count 20000] [--seed 0]

Without a folder the server has the tests' tiny model: decoding and parsing is what is attacked, not
the engine. Exit code 1 where a request is answered by what nobody documented or not at all in time,
where memory, files or threads grow, where the log holds a traceback, or where a good request among
them gets other boxes than before.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Final

from hostile_pictures import good
from hostile_requests import Case, cases, post
from watched import Held, Watched, tiny_folder, watched

CLIENTS: Final = 8
LIMIT_S: Final = 30.0  # the server's own deadline for an answer
GOOD_EVERY: Final = 500
# 501 is HTTP's own for a transfer coding that nobody knows.
DOCUMENTED: Final = (200, 400, 404, 405, 406, 408, 413, 414, 415, 422, 429, 431, 501, 503, 504)
STEPS: Final = 10
GROWTH, ROOM_MIB = 1.05, 20.0  # of memory
LAZY_THREADS: Final = 2  # asyncio's own pool grows to its size when it is needed
CLOSED: Final = 0  # no answer, where none was to come: the request had no end
REQUEST: Final = post("/v1/detect?conf=0.01", "image/jpeg", good("JPEG", 0, 640))


@dataclass(slots=True)
class Seen:
    """What became of the cases."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    slowest: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    faults: list[str] = field(default_factory=list)
    count: int = 0
    good: int = 0

    def add(self, case: Case, status: int, seconds: float) -> None:
        self.count += 1
        self.statuses[case.family][status] += 1
        self.slowest[case.family] = max(seconds, self.slowest[case.family])
        if status == CLOSED and not case.ends:
            self.faults.append(f"{case.family}: closed without an answer: {case.data[:300]!r}")
        elif status != CLOSED and status not in DOCUMENTED:
            self.faults.append(f"{case.family}: answered {status}: {case.data[:300]!r}")

    @property
    def totals(self) -> Counter[int]:
        return sum(self.statuses.values(), Counter())


class Client:
    """One connection, opened anew where it has ended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes, ends: bool = False) -> tuple[int, bytes]:
        """The status and the body of the answer; CLOSED where the connection ended without one."""
        if ends:
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        sending = asyncio.ensure_future(self._send(writer, data, ends))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length or 0))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            return CLOSED, b""
        finally:
            await sending
        if ends or b"connection: close" in head.lower():
            self.close()
        return int(head.split(b" ", 2)[1]), body

    async def _send(self, writer: asyncio.StreamWriter, data: bytes, ends: bool) -> None:
        try:
            writer.write(data)
            await writer.drain()
            if ends:
                writer.write_eof()
        except (OSError, RuntimeError):  # it has ended meanwhile
            pass

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def attack(port: int, sent: Iterable[Case], seen: Seen) -> None:
    """Send all, a few at a time, and a good request after so many."""
    asyncio.run(_attack(port, iter(sent), seen))


async def _attack(port: int, sent: Iterator[Case], seen: Seen) -> None:
    expected = await _boxes(port)
    assert expected, "the good request finds nothing"

    async def client() -> None:
        connection = Client(port)
        for case in sent:
            began = time.monotonic()
            try:
                async with asyncio.timeout(LIMIT_S + 5):
                    status, _ = await connection.ask(case.data, case.ends)
            except TimeoutError:
                connection.close()
                seen.faults.append(f"{case.family}: no answer in time: {case.data[:300]!r}")
                continue
            seen.add(case, status, time.monotonic() - began)
            if seen.count % GOOD_EVERY == 0:
                seen.good += 1
                if await _boxes(port) != expected:
                    seen.faults.append("a good request got other boxes than before")
        connection.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    if await _boxes(port) != expected:
        seen.faults.append("the last good request got other boxes than before")


async def _boxes(port: int) -> object:
    connection = Client(port)
    status, body = await connection.ask(REQUEST)
    connection.close()
    return json.loads(body)["detections"] if status == 200 else status


def grown(samples: Sequence[Held]) -> list[str]:
    """What the later half of the attack held more of than the earlier one, after its first tenth.

    Memory is judged by its medians: what a bomb took is given back sooner or later.
    """
    half = len(samples) // 2
    early, late = samples[1:half], samples[half:]
    faults = []
    before, after = (median(each.mib for each in part) for part in (early, late))
    if after > GROWTH * before + ROOM_MIB:
        faults.append(f"memory grew from {before:.0f} to {after:.0f} MiB")
    if late[-1].files > max(each.files for each in early):
        faults.append(f"open files grew to {late[-1].files}")
    if late[-1].threads > max(each.threads for each in early) + LAZY_THREADS:
        faults.append(f"threads grew to {late[-1].threads}")
    return faults


def settled(server: Watched) -> Held:
    """Once the connections are closed on both sides."""
    time.sleep(1)
    return server.held()


def table(seen: Seen) -> Iterator[str]:
    statuses = sorted(seen.totals)
    shown = ["no end, closed" if status == CLOSED else str(status) for status in statuses]
    yield f"| sent | {' | '.join(shown)} | slowest s |"
    yield "|---" * (len(statuses) + 2) + "|"
    for family, counts in sorted(seen.statuses.items()):
        cells = " | ".join(str(counts[status] or "") for status in statuses)
        yield f"| {family} | {cells} | {seen.slowest[family]:.2f} |"
    cells = " | ".join(str(seen.totals[status]) for status in statuses)
    yield f"| **{seen.totals.total()}** | {cells} | {max(seen.slowest.values()):.2f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: the tests' tiny model")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    given = arguments.folder
    # The attack is on parsers, so that nobody is turned away at the door.
    quiet = {"QYOLO_LOG_LEVEL": "warning", "QYOLO_CAPACITY": 32}
    with tiny_folder() if given is None else nullcontext(given) as folder:
        model = json.loads((folder / "manifest.json").read_text())["name"]
        sent = cases(arguments.count, arguments.seed, model)
        with watched(folder, **quiet) as server:
            seen, samples, began = Seen(), [], time.monotonic()
            for _ in range(STEPS):
                attack(server.port, islice(sent, arguments.count // STEPS), seen)
                samples.append(settled(server))
            seconds = time.monotonic() - began
            log = server.log.read_text()
    print("\n".join(table(seen)))
    print()
    failed = sum(count for status, count in seen.totals.items() if status >= 500)
    print(f"{seconds:.0f} s, {CLIENTS} connections; {failed} answers of 5xx; {seen.good} good ones")
    print("after each tenth:")
    print("MiB " + ", ".join(f"{each.mib:.0f}" for each in samples))
    print("files " + ", ".join(str(each.files) for each in samples))
    print("threads " + ", ".join(str(each.threads) for each in samples))
    faults = seen.faults + grown(samples)
    if "Traceback" in log:
        faults.append("the log holds a traceback: " + log[log.index("Traceback") :][:3000])
    print("\n".join(f"BROKEN: {fault}" for fault in faults[:20]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
