"""A token bucket for each client, in bounded memory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MAX_CLIENTS: Final = 10_000  # beyond it the client that was silent longest is forgotten
ROUNDING_S: Final = 1e-6


class RateLimit:
    """`burst` tokens for each client, refilled at `per_second`.

    A bucket is stored as one number, the time at which it is full again (GCRA).
    """

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = 1 / per_second
        self._tolerance_s = (burst - 1) / per_second
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token and return 0.0; if there is none, return the seconds until there is."""
        now = self._clock()
        full_at = max(self._full_at.get(client, now), now)
        wait_s = full_at - now - self._tolerance_s
        if wait_s <= ROUNDING_S:
            full_at += self._interval_s
        self._full_at[client] = full_at
        self._full_at.move_to_end(client)
        if len(self._full_at) > MAX_CLIENTS:
            self._full_at.popitem(last=False)
        return wait_s if wait_s > ROUNDING_S else 0.0

    def give_back(self, client: str) -> None:
        """Return a token that was taken."""
        if client in self._full_at:
            self._full_at[client] -= self._interval_s
