"""Tens of thousands of hostile requests against a real server, and the server's state after them.

    .venv/bin/python bench/robustness/hostile.py [MODEL_FOLDER] [--count 20000] [--seed 0] [--costs]

8 connections send broken, truncated and exploding pictures and bodies to every route that reads a
body; the default model is qyolo-nano at 64x64, because parsers are attacked, not the engine. Prints
responses by family and HTTP status, the slowest of each family in seconds, and memory, open files
and threads of the server after each tenth of the requests.

Exits with 1 if a response has an undocumented status or none in time, if memory, files or threads
grow, if the log holds a traceback, or if a good request, sent after every 500, gets other boxes
than before.

With --costs it sends the inputs of worst_inputs.py instead, each three times at once, and prints
those that cost most: peak memory above that before, CPU seconds, and the slowest answer of /healthz
meanwhile, which is asked for every 10 ms. Exits with 1 if the three take more than 600 MiB.
"""

import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Final

from bench.command_line import folder_parser, print_header, print_row
from bench.load import Connection, content_length, post_jpeg, status_of
from bench.robustness.costs import Cost, cost_of
from bench.robustness.hostile_images import valid
from bench.robustness.hostile_requests import Case, cases
from bench.robustness.worst_inputs import worst_inputs
from bench.serving import Resources, Server, serve, tiny_folder
from service.manifest import read_manifest

CLIENTS: Final = 8
LIMIT_S: Final = 30.0  # the server's own deadline for a response
GOOD_EVERY: Final = 500
# 501 is the status that HTTP defines for an unknown transfer coding.
DOCUMENTED: Final = (200, 400, 404, 405, 406, 408, 413, 414, 415, 422, 429, 431, 501, 503, 504)
STEPS: Final = 10
GROWTH, MARGIN_MIB = 1.05, 20.0  # of memory
AT_ONCE, WORST, MAX_PEAK_MIB = 3, 20, 600
LAZY_THREADS: Final = 2  # asyncio's default executor starts threads when it needs them
CLOSED: Final = 0  # stands for a connection that ended without a response
REQUEST: Final = post_jpeg("/v1/detect?conf=0.01", valid("JPEG", 0, 640))


@dataclass(slots=True)
class Outcome:
    """Responses so far, by family of case; `failures`: what the server must never do."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    slowest: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    failures: list[str] = field(default_factory=list)
    count: int = 0
    good: int = 0

    def add(self, case: Case, status: int, seconds: float) -> None:
        self.count += 1
        self.statuses[case.family][status] += 1
        self.slowest[case.family] = max(seconds, self.slowest[case.family])
        if status == CLOSED and not case.ends:
            self.failures.append(f"{case.family}: closed without a response: {case.data[:300]!r}")
        elif status != CLOSED and status not in DOCUMENTED:
            self.failures.append(f"{case.family}: status {status}: {case.data[:300]!r}")

    @property
    def totals(self) -> Counter[int]:
        return sum(self.statuses.values(), Counter())


class HostileConnection(Connection):
    """Reads a response while it still sends, and may end its side of the connection."""

    async def exchange(self, data: bytes, ends: bool = False) -> tuple[int, bytes]:
        """Status and body of the response; CLOSED if the connection ended without one."""
        if ends:
            self.close()
        reader, writer = await self._open()
        sending = asyncio.ensure_future(self._write(writer, data, ends))
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(content_length(head))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            return CLOSED, b""
        finally:
            await sending
        if ends or b"connection: close" in head:
            self.close()
        return status_of(head), body

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, ends: bool) -> None:
        try:
            writer.write(data)
            await writer.drain()
            if ends:
                writer.write_eof()
        except (OSError, RuntimeError):  # the server closed the connection meanwhile
            pass


def attack(port: int, sent: Iterable[Case], outcome: Outcome) -> None:
    """Send all cases over CLIENTS connections, and a good request after every GOOD_EVERY."""
    asyncio.run(_attack(port, iter(sent), outcome))


async def _attack(port: int, sent: Iterator[Case], outcome: Outcome) -> None:
    expected = await _boxes(port)
    assert expected, "the good request finds no box"

    async def client() -> None:
        connection = HostileConnection(port)
        for case in sent:
            began = time.monotonic()
            try:
                async with asyncio.timeout(LIMIT_S + 5):
                    status, _ = await connection.exchange(case.data, case.ends)
            except TimeoutError:
                outcome.failures.append(f"{case.family}: no response: {case.data[:300]!r}")
                connection.close()
                continue
            outcome.add(case, status, time.monotonic() - began)
            if outcome.count % GOOD_EVERY == 0:
                outcome.good += 1
                if await _boxes(port) != expected:
                    outcome.failures.append("a good request got other boxes than before")
        connection.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    if await _boxes(port) != expected:
        outcome.failures.append("the last good request got other boxes than before")


async def _boxes(port: int) -> object:
    connection = HostileConnection(port)
    status, body = await connection.exchange(REQUEST)
    connection.close()
    return json.loads(body)["detections"] if status == 200 else status


def growth(samples: Sequence[Resources]) -> list[str]:
    """The resources that grew from the attack's first half, less its first tenth, to its second.

    Memory is compared by medians, because a large picture occupies some for a while.
    """
    half = len(samples) // 2
    early, late = samples[1:half], samples[half:]
    failures = []
    before, after = (median(each.mib for each in part) for part in (early, late))
    if after > GROWTH * before + MARGIN_MIB:
        failures.append(f"memory grew from {before:.0f} to {after:.0f} MiB")
    if late[-1].files > max(each.files for each in early):
        failures.append(f"open files grew to {late[-1].files}")
    if late[-1].threads > max(each.threads for each in early) + LAZY_THREADS:
        failures.append(f"threads grew to {late[-1].threads}")
    return failures


def print_outcome(outcome: Outcome) -> None:
    statuses = sorted(outcome.totals)
    shown = ("closed, no end" if status == CLOSED else str(status) for status in statuses)
    print_header("sent", *shown, "slowest s")
    for family, counts in sorted(outcome.statuses.items()):
        cells = (counts[status] or "" for status in statuses)
        print_row(family, *cells, f"{outcome.slowest[family]:.2f}")
    totals = outcome.totals
    cells = (totals[status] for status in statuses)
    print_row(f"**{totals.total()}**", *cells, f"{max(outcome.slowest.values()):.2f}")


def print_costs(server: Server, model: str) -> int:
    """The inputs that cost most, by the share of each column's largest value."""
    cost_of(server, [REQUEST] * AT_ONCE)  # what the first requests allocate stays
    costs = {}
    for each in worst_inputs():
        request = each.request(model)
        size = len(request.partition(b"\r\n\r\n")[2])
        costs[each.name, size] = cost_of(server, [request] * AT_ONCE)
    columns = [(cost.peak_mib, cost.cpu_s, cost.late_ms) for cost in costs.values()]
    most = [max(column) or 1.0 for column in zip(*columns, strict=True)]

    def weight(cost: Cost) -> float:
        values = (cost.peak_mib, cost.cpu_s, cost.late_ms)
        return max(value / largest for value, largest in zip(values, most, strict=True))

    print_header("input", "bytes", "status", "peak MiB", "kept MiB", "CPU s", "healthz ms", "s")
    worst = sorted(costs.items(), key=lambda item: weight(item[1]), reverse=True)
    for (name, size), cost in worst[:WORST]:
        statuses = ", ".join(map(str, sorted(cost.statuses)))
        mib = (f"{cost.peak_mib:.0f}", f"{cost.kept_mib:.0f}")
        times = (f"{cost.cpu_s:.2f}", f"{cost.late_ms:.0f}", f"{cost.seconds:.2f}")
        print_row(name, size, statuses, *mib, *times)
    return 1 if max(cost.peak_mib for cost in costs.values()) > MAX_PEAK_MIB else 0


def main() -> int:
    parser = folder_parser(__doc__, "qyolo-nano at 64x64")
    parser.add_argument("--count", type=int, default=20_000, help="memory needs 10,000 or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--costs", action="store_true", help="of the worst inputs by the byte")
    arguments = parser.parse_args()
    if arguments.costs:
        with tiny_folder(arguments.folder) as folder, serve(folder) as server:
            return print_costs(server, read_manifest(folder).name)
    # Enough capacity and bytes that every case reaches a parser.
    settings = {
        "QYOLO_LOG_LEVEL": "warning",
        "QYOLO_CAPACITY": 32,
        "QYOLO_MAX_INFLIGHT_BYTES": CLIENTS * 20 * 2**20,
    }
    outcome, samples, began = Outcome(), [], time.monotonic()
    with tiny_folder(arguments.folder) as folder, serve(folder, environment=settings) as server:
        sent = cases(arguments.count, arguments.seed, read_manifest(folder).name)
        for _ in range(STEPS):
            attack(server.port, islice(sent, arguments.count // STEPS), outcome)
            time.sleep(1)  # until the connections are closed on both sides
            samples.append(server.resources())
        seconds = time.monotonic() - began
    log = "".join(server.log_lines)
    print_outcome(outcome)
    failed = sum(count for status, count in outcome.totals.items() if status >= 500)
    print(
        f"\n{seconds:.0f} s, {CLIENTS} connections; {failed} responses of 5xx; "
        f"{outcome.good} good requests\nafter each tenth:"
    )
    for name in ("mib", "files", "threads"):
        print(name, ", ".join(f"{getattr(each, name):.0f}" for each in samples))
    failures = outcome.failures + growth(samples)
    if "Traceback" in log:
        failures.append("the log holds a traceback: " + log[log.index("Traceback") :][:3000])
    print("\n".join(f"FAILURE: {failure}" for failure in failures[:20]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
