"""What a box can serve: the processor's time for an image, and latency under load, beside a model.

    .venv/bin/python bench/capacity.py [MODEL_FOLDER] [--variant int8]

First a server on one core and on all of them: latency of one client, images a second when it never
idles, seconds of processor time for an image and, where the kernel tells it (RAPL), joules. Then
requests by chance at a share of that rate, and beside each measured row what `queueing.py` expects
of one queue with the measured times. The clients run on the same cores.
"""

import argparse
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import load
import numpy as np
import overhead
import serving
from queueing import simulate
from watched import Watched, watched

from service.inference.pipeline import room
from service.manifest import read_manifest

SHARES: Final = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0)
ARRIVALS: Final = 100_000  # of a simulation
BUSY: Final = 429
RAPL: Final = Path("/sys/class/powercap/intel-rapl:0/energy_uj")  # AMD's processors too


@dataclass(frozen=True, slots=True)
class Cost:
    """What images cost on so many cores."""

    cores: int
    alone: load.Seen
    busy: load.Seen
    cpu_s: float  # of the server, for an image
    joules: float | None  # of the whole package, for an image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: the detector in the box")
    parser.add_argument("--variant")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    arguments = parser.parse_args()
    with serving.model_folder(arguments.folder) as folder:
        variant = arguments.variant or read_manifest(folder).default
        path = f"/v1/models/{variant}/detect"
        requests = [load.Request.raw(path, overhead.jpeg((640, 480)))]
        cores = len(os.sched_getaffinity(0))
        print(f"{folder.name} {variant}, 640x480 JPEG\n")
        print(
            "| cores | p50 ms | p99 ms | images/s | for each core | CPU ms an image | J an image |"
        )
        print("|---|---|---|---|---|---|---|")
        for count in sorted({1, cores}):
            with watched(folder, QYOLO_LOG_LEVEL="warning", cores=count) as server:
                cost = cost_of(server, requests, count, arguments.seconds)
                print(row_of(cost), flush=True)
                if count == cores:
                    print_curve(server, requests, cost, arguments.seconds)


def cost_of(server: Watched, requests: list[load.Request], cores: int, seconds: float) -> Cost:
    alone = load.closed_loop(server.port, requests, 1, seconds)
    cpu, energy = server.cpu_seconds(), joules()
    busy = load.closed_loop(server.port, requests, room(1, cores), seconds, 0.0)
    images = busy.counts[200]
    spent, used = server.cpu_seconds() - cpu, joules()
    per_image = None if energy is None or used is None else (used - energy) / images
    return Cost(cores, alone, busy, spent / images, per_image)


def row_of(cost: Cost) -> str:
    rate = cost.busy.per_second
    energy = "not told" if cost.joules is None else f"{cost.joules:.2f}"
    return (
        f"| {cost.cores} | {cost.alone.percentile(50):.1f} | {cost.alone.percentile(99):.1f} | "
        f"{rate:.1f} | {rate / cost.cores:.1f} | {cost.cpu_s * 1000:.1f} | {energy} |"
    )


def print_curve(server: Watched, requests: list[load.Request], cost: Cost, seconds: float) -> None:
    """Latency against load: measured, and expected of a queue."""
    full = cost.busy.per_second
    alone = np.array(cost.alone.ms[200]) / 1000
    # At full load an image takes the box so long; what one alone takes longer, it waits for itself.
    services = alone * (1 / full / alone.mean())
    print("\n| load | requests/s | p50 ms | expected | p99 ms | expected | refused | expected |")
    print("|---|---|---|---|---|---|---|---|")
    places = room(1, cost.cores)
    for share in SHARES:
        seen = load.open_loop(server.port, requests, share * full, seconds)
        model = simulate(share * full, list(services), places, ARRIVALS, random.Random(0))
        latency = (np.array(model.waits) + np.array(model.services) * alone.mean() * full) * 1000
        told = [
            f"{share:.0%}",
            f"{share * full:.0f}",
            *(
                f"{value:.1f}"
                for share_of in (50, 99)
                for value in (seen.percentile(share_of), np.percentile(latency, share_of))
            ),
            f"{seen.counts[BUSY] / seen.counts.total():.1%}",
            f"{model.refused:.1%}",
        ]
        print("| " + " | ".join(told) + " |", flush=True)
        time.sleep(1.0)


def joules() -> float | None:
    """What the package has used since some moment."""
    try:
        return int(RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    main()
