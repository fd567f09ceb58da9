"""A circuit breaker: whether the engine of one variant works, and when to load it again."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

FAILURES: Final = 3  # in a row: one may be the fault of one image, three are the engine's
FIRST_PAUSE_S: Final = 0.5  # before the second attempt to load it again; doubled each time
LONGEST_PAUSE_S: Final = 60.0
HANGS: Final = 3  # each keeps a thread and an engine's memory: after these it stays broken


class Health:
    """The engine is broken after FAILURES in a row, or after one hang.

    It is on trial once it has been loaded again: then one failure is enough, until a success.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.broken: str | None = None  # why, without anything that only the log may say
        self.failing_since: float | None = None  # when it broke, until its next success
        self._clock = clock
        self._lock = Lock()
        self._in_a_row = 0
        self._attempts = 0
        self._hangs = 0
        self._retry_at = 0.0

    def succeeded(self) -> None:
        """An inference has returned finite numbers."""
        if self._in_a_row or self.failing_since is not None:
            with self._lock:
                if self.broken is None:
                    self._clear()

    def failed(self, why: str) -> None:
        """An inference has failed."""
        with self._lock:
            self._in_a_row += 1
            limit = FAILURES if self.failing_since is None else 1
            if self.broken is None and self._in_a_row >= limit:
                self._break(why)

    def hangs(self, why: str) -> None:
        """An inference does not end."""
        with self._lock:
            self._hangs += 1
            if self.broken is None:
                self._break(why)

    def returned(self) -> None:
        """The inference that seemed to hang has succeeded after all."""
        with self._lock:
            self._hangs -= 1
            self._clear()

    def is_due(self) -> bool:
        """Whether it is time to load the engine again."""
        is_open = self.broken is not None and self._hangs < HANGS
        return is_open and self._clock() >= self._retry_at

    def loaded(self) -> None:
        """The engine has been loaded again, and infers."""
        with self._lock:
            self._count_attempt()
            self.broken = None
            self._in_a_row = 0

    def not_loaded(self) -> None:
        """The attempt to load the engine again has failed."""
        with self._lock:
            self._count_attempt()

    def _break(self, why: str) -> None:
        now = self._clock()
        self.broken = why
        self.failing_since = now if self.failing_since is None else self.failing_since
        self._retry_at = max(self._retry_at, now)

    def _count_attempt(self) -> None:
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._attempts)
        self._attempts = min(self._attempts + 1, 16)
        self._retry_at = self._clock() + pause

    def _clear(self) -> None:
        self.broken = self.failing_since = None
        self._in_a_row = self._attempts = 0
        self._retry_at = 0.0
