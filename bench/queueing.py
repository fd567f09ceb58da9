"""A queue in front of one engine: what load makes of latency, without a server.

Requests arrive by chance (Poisson). Who finds the house full is refused; the others are served one
after the other: M/G/1/K in Kendall's notation, its service times drawn from measured ones.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds that the accepted requests wait and are served, and the share that is refused."""

    waits: list[float]
    services: list[float]
    refused: float


def simulate(
    rate: float, services: Sequence[float], room: int, count: int, chance: random.Random
) -> Expected:
    """`count` arrivals at `rate` a second; `services` in seconds; `room` for who is served too."""
    leaving: deque[float] = deque()  # when each who is in the house will have been served
    now, waits, served, refused = 0.0, [], [], 0
    for _ in range(count):
        now += chance.expovariate(rate)
        while leaving and leaving[0] <= now:
            leaving.popleft()
        if len(leaving) >= room:
            refused += 1
            continue
        begins = leaving[-1] if leaving else now
        service = chance.choice(services)
        leaving.append(begins + service)
        waits.append(begins - now)
        served.append(service)
    return Expected(waits, served, refused / count)
