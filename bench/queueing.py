"""A queue in front of one engine that bounds the wait: latency under load, without a server.

Arrivals are a Poisson process. A request that would wait longer than the bound is refused; the rest
are served in the order of arrival (M/G/1 with bounded wait). Service times are drawn from measured
ones.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds that accepted requests wait and are served; `refused` is a share of all arrivals."""

    waits: list[float]
    services: list[float]
    refused: float


def simulate(
    rate: float, services: Sequence[float], max_wait: float, count: int, chance: random.Random
) -> Expected:
    """`count` arrivals at `rate` a second; `services` and `max_wait` in seconds."""
    now, free_at, waits, served = 0.0, 0.0, [], []
    for _ in range(count):
        now += chance.expovariate(rate)
        wait = max(0.0, free_at - now)
        if wait > max_wait:
            continue
        service = chance.choice(services)
        free_at = now + wait + service
        waits.append(wait)
        served.append(service)
    return Expected(waits, served, 1 - len(served) / count)
