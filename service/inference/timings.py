"""How long one image spent in each stage, in seconds."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Final, Literal

Stage = Literal["decode", "preprocess", "queue", "infer", "postprocess", "total"]

Timings = Mapping[Stage, float]

# Whoever traces a request hears of each of its stages at its end, in the thread that worked.
WATCHER: Final[ContextVar[Callable[[Stage, float], None] | None]] = ContextVar(
    "WATCHER", default=None
)


class Stopwatch:
    """Adds up the stages of one image; `queue` is every wait for a free thread.

    A watch given earlier timings goes on from them, their total included.
    """

    def __init__(self, so_far: Timings | None = None) -> None:
        self._seconds: dict[Stage, float] = dict(so_far or {"queue": 0.0})
        self._began = perf_counter() - self._seconds.pop("total", 0.0)
        self._watcher = WATCHER.get()

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time what happens inside."""
        began = perf_counter()
        try:
            yield
        finally:
            self.add(stage, perf_counter() - began)

    def add(self, stage: Stage, seconds: float) -> None:
        """Count what has just ended."""
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        if self._watcher is not None:
            self._watcher(stage, seconds)

    def read(self) -> Timings:
        """The stages so far and the time since the start as `total`."""
        return {**self._seconds, "total": perf_counter() - self._began}
