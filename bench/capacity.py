"""What a machine can serve: processor time for an image, and latency under load.

    .venv/bin/python bench/capacity.py [MODEL_FOLDER] [--variant int8] [--seconds 10]

First table: a server on one core and on all cores. p50 and p99 in milliseconds of one client in a
closed loop; images a second of as many clients as keep the server busy; processor time of the
server for an image and, where the kernel counts energy (RAPL), joules of the whole package for an
image.

Second table: requests in an open loop (Poisson) at a share of that rate. Beside each measured
number stands what `queueing.py` expects of a single queue with the measured times and the server's
bound on the wait. The clients run on the same cores as the server.
"""

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.command_line import print_header, print_row, server_parser
from bench.load import BUSY, Responses, closed_loop, open_loop, post_jpeg
from bench.overhead import jpeg
from bench.queueing import simulate
from bench.serving import Server, model_folder, serve
from service.inference.admission import default_capacity
from service.manifest import read_manifest
from service.settings import DEFAULT_MAX_WAIT_S, DEFAULT_WAITING_IMAGES

SHARES: Final = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0)
ARRIVALS: Final = 100_000  # of a simulation
RANKS: Final = (50, 99)
RAPL: Final = Path("/sys/class/powercap/intel-rapl:0/energy_uj")  # AMD's processors too


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of images on `cores` cores; `joules` of the package, None without a counter."""

    cores: int
    alone: Responses
    busy: Responses
    cpu_s: float
    joules: float | None


def main() -> None:
    arguments = server_parser(__doc__, variant=None, seconds=10.0).parse_args()
    with model_folder(arguments.folder) as folder:
        variant = arguments.variant or read_manifest(folder).default
        requests = [post_jpeg(f"/v1/models/{variant}/detect", jpeg((640, 480)))]
        cores = len(os.sched_getaffinity(0))
        print(f"{folder.name} {variant}, 640x480 JPEG\n")
        columns = ("cores", "p50 ms", "p99 ms", "images/s", "for each core", "CPU ms an image")
        print_header(*columns, "J an image")
        for count in sorted({1, cores}):
            quiet = {"QYOLO_LOG_LEVEL": "warning"}
            with serve(folder, cores=count, environment=quiet) as server:
                cost = cost_of(server, requests, count, arguments.seconds)
                print_cost(cost)
                if count == cores:
                    print_curve(server.port, requests, cost, arguments.seconds)


def cost_of(server: Server, requests: list[bytes], cores: int, seconds: float) -> Cost:
    alone = closed_loop(server.port, requests, 1, seconds)
    cpu, energy = server.cpu_seconds(), joules()
    busy = closed_loop(server.port, requests, default_capacity(1, cores), seconds, 0.0)
    images = busy.counts[200]
    spent, used = server.cpu_seconds() - cpu, joules()
    per_image = None if energy is None or used is None else (used - energy) / images
    return Cost(cores, alone, busy, spent / images, per_image)


def print_cost(cost: Cost) -> None:
    rate = cost.busy.per_second
    latency = (cost.alone.percentile(rank) for rank in RANKS)
    numbers = (*latency, rate, rate / cost.cores, cost.cpu_s * 1000)
    energy = "no counter" if cost.joules is None else f"{cost.joules:.2f}"
    print_row(cost.cores, *(f"{each:.1f}" for each in numbers), energy)


def print_curve(port: int, requests: list[bytes], cost: Cost, seconds: float) -> None:
    """Latency against load: measured, and expected of a queue."""
    full = cost.busy.per_second
    max_wait = max(DEFAULT_MAX_WAIT_S - 1 / full, DEFAULT_WAITING_IMAGES / full)
    alone = np.array(cost.alone.ms[200]) / 1000
    # The queue's service time is the interval between two images at full load. The additional time
    # of an image that is alone delays that image, but not the next.
    stretch = full * alone.mean()
    services = list(alone / stretch)
    print()
    columns = ("load", "requests/s", "p50 ms", "expected", "p99 ms", "expected", "refused")
    print_header(*columns, "expected")
    for share in SHARES:
        responses = open_loop(port, requests, share * full, seconds)
        queue = simulate(share * full, services, max_wait, ARRIVALS, random.Random(0))
        expected = (np.array(queue.waits) + np.array(queue.services) * stretch) * 1000
        pairs = ((responses.percentile(rank), np.percentile(expected, rank)) for rank in RANKS)
        latency = (f"{ms:.1f}" for pair in pairs for ms in pair)
        refused = (responses.counts[BUSY] / responses.counts.total(), queue.refused)
        shares = (f"{each:.1%}" for each in refused)
        print_row(f"{share:.0%}", f"{share * full:.0f}", *latency, *shares)
        time.sleep(1.0)


def joules() -> float | None:
    """The package's energy counter, which starts anywhere."""
    try:
        return int(RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    main()
