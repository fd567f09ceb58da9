"""How long one image spends in each stage, in seconds."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Final, Literal

Stage = Literal["decode", "preprocess", "queue", "infer", "postprocess", "total"]

Timings = Mapping[Stage, float]

# Called at the end of each stage of the current request's image, in the thread that did the work.
WATCHER: Final[ContextVar[Callable[[Stage, float], None] | None]] = ContextVar(
    "WATCHER", default=None
)


class Stopwatch:
    """Adds up the stages of one image; `queue` is every wait for a thread or for the engine."""

    def __init__(self) -> None:
        self._seconds: dict[Stage, float] = {"queue": 0.0}
        self._began = perf_counter()
        self._watcher = WATCHER.get()

    def resume(self, timings: Timings) -> "Stopwatch":
        """Another stopwatch for this request, which continues from these timings."""
        resumed = Stopwatch()
        resumed._seconds = dict(timings)
        resumed._began -= resumed._seconds.pop("total", 0.0)
        resumed._watcher = self._watcher
        return resumed

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time the block."""
        began = perf_counter()
        try:
            yield
        finally:
            self.add(stage, perf_counter() - began)

    def add(self, stage: Stage, seconds: float) -> None:
        """Add to a stage that has just ended."""
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        if self._watcher is not None:
            self._watcher(stage, seconds)

    def read(self) -> Timings:
        """The stages so far, and the time since the start as `total`."""
        return {**self._seconds, "total": perf_counter() - self._began}
