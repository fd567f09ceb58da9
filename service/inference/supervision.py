"""The engines of one process: broken ones are loaded again, hanging ones are given up.

Every inference of the pipeline goes through `SupervisedEngines.infer`. A thread of its own looks at
the inferences in progress and at the state of each engine.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

from service.errors import EngineFailed, NotReady, VariantFailed
from service.inference.detector import Detector
from service.inference.health import Health
from service.inference.outputs import infers_blank, is_finite
from service.inference.results import EngineFailure, FailureReason
from service.inference.semaphore import Waiter
from service.inference.timings import Stopwatch
from service.inference.variants import VariantSet
from service.inference.workers import Workers

HANG: Final = 3.0  # times the deadline of a request, which has had its answer long before
COMPILE_S: Final = 60.0  # the first inference of a tensor may load or compile the whole graph
LONGEST_LOOK_S: Final = 0.5  # between two looks at the engines

R = TypeVar("R")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How long an inference may take, and for how long no variant may be able to answer."""

    hang_s: float = 90.0
    recovery_s: float = 30.0

    @classmethod
    def of(cls, deadline_s: float, recovery_s: float) -> Self:
        return cls(HANG * deadline_s, recovery_s)


@dataclass(slots=True, eq=False)
class _Call:
    """One inference in progress."""

    variant: str
    detector: Detector
    waiter: Waiter
    limit_s: float
    thread: int = field(default_factory=threading.get_ident)
    began: float = field(default_factory=time.monotonic)
    hangs: bool = False


class SupervisedEngines:
    """`lost` is called once, with the reason, when no variant could be recovered."""

    def __init__(
        self,
        variants: VariantSet[Detector],
        workers: Workers,
        limits: EngineLimits,
        emit: Callable[[EngineFailure], None],
    ) -> None:
        self.lost: Callable[[str], None] = lambda reason: None
        self._variants = variants
        self._workers = workers
        self._limits = limits
        self._emit = emit
        self._health = {name: Health() for name in variants.names}
        self._calls: dict[Waiter, _Call] = {}
        self._lock = threading.Condition()  # of the calls; notified when one has ended
        self._loading: set[str] = set()
        self._is_lost = False
        self._closed = False
        self._draining = False
        self._look = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="engines", daemon=True)
        self._thread.start()

    def failures(self) -> Mapping[str, str]:
        """The variants whose engines are broken, and why."""
        known = ((name, health.broken) for name, health in self._health.items())
        return {name: why for name, why in known if why is not None}

    def infer(
        self,
        variant: str,
        run: Callable[[Detector], R],
        waiter: Waiter,
        clock: Stopwatch,
        is_image: bool = True,
    ) -> R:
        """What `run` returns of the variant's detector: an array or several.

        A failure with a tensor counts only if the engine fails with a blank image too, since a
        tensor may contain anything. Raises Cancelled, EngineFailed, VariantFailed.
        """
        limit_s = self._limits.hang_s if is_image else max(COMPILE_S, self._limits.hang_s)
        with self._workers.engine(waiter, clock):
            detector = self.require(variant)
            with self._watched(_Call(variant, detector, waiter, limit_s)) as call:
                try:
                    outputs = run(detector)
                except MemoryError:  # of the process: another engine would not have it either
                    raise
                except BaseException as exc:
                    if is_image or not infers_blank(detector):
                        self._failed(call, "error", "its last inferences failed")
                    if isinstance(exc, Exception):
                        raise
                    raise EngineFailed(f"{variant}: {type(exc).__name__}") from exc  # as in Rust
        if not is_finite(outputs):
            if is_image or not self._works(variant, detector):
                self._failed(call, "not_finite", "its outputs are not finite numbers")
                raise EngineFailed(f"{variant}: the outputs are not finite numbers")
        elif not call.hangs:
            self._health[variant].succeeded()
        elif detector is self._variants.get(variant):
            self._health[variant].returned()
        return outputs

    def require(self, variant: str) -> Detector:
        """The variant's detector; raises VariantNotFound, or VariantFailed if it is broken."""
        detector = self._variants.get(variant)
        why = self._health[variant].broken
        if why is not None:
            raise VariantFailed(f"{variant} failed: {why}")
        return detector

    def close(self) -> None:
        """End the supervision."""
        self._closed = True
        self._look.set()

    def drain(self, timeout_s: float | None = None) -> bool:
        """Begin no more inferences; whether those in progress have ended within the time."""
        with self._lock:
            self._draining = True
            return self._lock.wait_for(lambda: not self._calls, timeout_s)

    @contextmanager
    def _watched(self, call: _Call) -> Iterator[_Call]:
        with self._lock:
            if self._draining:
                raise NotReady("the engines of this version are being freed")
            self._calls[call.waiter] = call
        try:
            yield call
        finally:
            with self._lock:
                del self._calls[call.waiter]
                self._lock.notify_all()

    def _in_progress(self) -> tuple[_Call, ...]:
        with self._lock:
            return tuple(self._calls.values())

    def _failed(self, call: _Call, reason: FailureReason, why: str) -> None:
        if call.hangs or call.detector is not self._variants.get(call.variant):
            return  # it has been counted, or its engine has been replaced
        self._emit(EngineFailure(reason))
        health = self._health[call.variant]
        was_broken = health.broken
        health.failed(why)
        if health.broken and not was_broken:
            self._report(call.variant, why)

    def _works(self, variant: str, detector: Detector) -> bool:
        waiter = Waiter()
        with (
            self._workers.engine(waiter, Stopwatch()),
            self._watched(_Call(variant, detector, waiter, self._limits.hang_s)),
        ):
            return infers_blank(detector)

    def _report(self, variant: str, why: str) -> None:
        log.error("%s is taken out of service: %s", variant, why)
        self._look.set()

    # In the thread of the supervision

    def _watch(self) -> None:
        pause_s = min(LONGEST_LOOK_S, self._limits.hang_s / 4)
        while not self._closed:
            self._look.wait(pause_s)
            self._look.clear()
            now = time.monotonic()
            for call in self._in_progress():
                if now - call.began > call.limit_s and not call.hangs:
                    self._give_up(call)
            for name, health in self._health.items():
                if health.is_due() and name not in self._loading and not self._closed:
                    self._loading.add(name)
                    thread = threading.Thread(target=self._reload, args=(name,), daemon=True)
                    thread.start()
            self._check_lost(now)

    def _give_up(self, call: _Call) -> None:
        """Free what a hanging inference holds: its permit, its thread and its request."""
        with self._lock:
            if self._calls.get(call.waiter) is not call:
                return  # it has just ended
            call.hangs = True
            self._workers.free(call.waiter)
        why = f"an inference has not ended within {call.limit_s:g} s"
        self._emit(EngineFailure("hang"))
        if call.detector is self._variants.get(call.variant):
            self._health[call.variant].hangs(why)
            self._report(call.variant, why)
        self._workers.abandon(call.thread, VariantFailed(f"{call.variant} failed: {why}"))

    def _check_lost(self, now: float) -> None:
        states = [self._health[name] for name in self._variants.eligible]
        since = [health.failing_since for health in states if health.broken is not None]
        if self._is_lost or self._closed or len(since) < len(states):
            return
        if all(each is not None and now - each >= self._limits.recovery_s for each in since):
            self._is_lost = True
            reasons = (f"{name} failed: {why}" for name, why in self.failures().items())
            self.lost("; ".join(reasons))

    def _reload(self, name: str) -> None:
        """Replace the engine by a new one; without one, the old one serves if it works again."""
        health = self._health[name]
        old = self._variants.get(name)
        hangs = any(call.hangs and call.detector is old for call in self._in_progress())
        try:
            fresh = self._load(name)
            if fresh is not None:
                self._variants.replace(name, fresh)
            elif hangs or self._closed or not self._works(name, old):
                health.not_loaded()
                return
            health.loaded()
            log.warning("%s is back in service", name)
            if fresh is not None and not hangs:  # what hangs is never freed
                with self._workers.engine(Waiter(), Stopwatch()):
                    old.close()
        finally:
            self._loading.discard(name)
            self._look.set()

    def _load(self, name: str) -> Detector | None:
        """A new detector that works; None, and a line in the log, if there is none."""
        fresh: Detector | None = None
        try:
            fresh = self._variants.load(name)
            if self._works(name, fresh):
                return fresh
            why: object = "a blank image cannot be inferred"
        except BaseException as exc:  # a panic in Rust is no Exception
            why = exc
        if fresh is not None:
            fresh.close()
        if self._closed:
            return None
        self._emit(EngineFailure("load"))
        log.error("%s cannot be loaded again: %s", name, why)
        return None
