"""A queue in front of one engine (M/G/1/K in Kendall's notation): latency under load, no server.

Arrivals are a Poisson process. A request that finds K others in the system is refused; the rest are
served in the order of arrival. Service times are drawn from measured ones.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds that accepted requests wait and are served; `refused` is a share of all arrivals."""

    waits: list[float]
    services: list[float]
    refused: float


def simulate(
    rate: float, services: Sequence[float], capacity: int, count: int, chance: random.Random
) -> Expected:
    """`count` arrivals at `rate` a second, of which `capacity` fit: one served, the rest waiting.

    `services` in seconds.
    """
    departures: deque[float] = deque()  # of the accepted requests that are not finished yet
    now, waits, served, refused = 0.0, [], [], 0
    for _ in range(count):
        now += chance.expovariate(rate)
        while departures and departures[0] <= now:
            departures.popleft()
        if len(departures) >= capacity:
            refused += 1
            continue
        begins = departures[-1] if departures else now
        service = chance.choice(services)
        departures.append(begins + service)
        waits.append(begins - now)
        served.append(service)
    return Expected(waits, served, refused / count)
