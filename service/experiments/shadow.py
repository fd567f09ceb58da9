"""A second answer to a sample of the images, when nobody waits: how far two variants agree."""

import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Final

from service.errors import EngineFailed
from service.experiments.events import Compared, Outcome, Shadowed
from service.experiments.split import Sample
from service.inference.detector import Detector
from service.inference.events import Event
from service.inference.results import Answer
from service.inference.semaphore import FairSemaphore, Waiter
from service.vision.detections import Detections
from service.vision.postprocess import Query
from service.vision.preprocess import Prepared

MOST: Final = 4  # prepared images that are kept for it: 1.2 MiB each at 640x640

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """An answer, and what another variant needs to give its own."""

    variant: str
    boxes: Detections
    prepared: Prepared
    query: Query


class Shadow:
    """Knows no thread: `work_off` runs in whichever calls it, all else returns at once."""

    def __init__(
        self,
        sample: Sample,
        detector: Detector,
        turns: FairSemaphore,
        observe: Callable[[Event], None],
        chance: random.Random | None = None,
    ) -> None:
        self._sample = sample
        self._detector = detector
        self._turns = turns
        self._observe = observe
        self._chance = chance or random.Random()
        self._room = BoundedSemaphore(MOST)
        self._waiting: deque[Sampled] = deque()
        self._closed = False

    @property
    def waits(self) -> bool:
        """Whether there is something to work off."""
        return bool(self._waiting) and not self._closed

    def sample(self, answer: Answer, prepared: Prepared, query: Query) -> Sampled | None:
        """Keep room for this answer, if chance wants it and there is room; `enqueue` it then."""
        wanted = answer.variant != self._sample.variant
        if not wanted or self._chance.random() >= self._sample.share:
            return None
        if not self._room.acquire(blocking=False):
            self._end("dropped")
            return None
        return Sampled(answer.variant, answer.detections, prepared, query)

    def enqueue(self, sampled: Sampled) -> None:
        self._waiting.append(sampled)

    def work_off(self, is_idle: Callable[[], bool]) -> None:
        """Answer what waits, one at a time, for as long as nobody else wants the engine."""
        while is_idle() and self.waits:
            self._answer(self._waiting.popleft())

    def close(self) -> None:
        """Work off no more."""
        self._closed = True

    def _answer(self, sampled: Sampled) -> None:
        try:
            with self._turns.turn(Waiter()):
                raw = self._detector.infer(sampled.prepared)
            found = self._detector.postprocess(raw, sampled.prepared, sampled.query)
        except Exception as exc:
            unforeseen = None if isinstance(exc, EngineFailed) else exc
            log.error("the shadow %s failed: %s", self._sample.variant, exc, exc_info=unforeseen)
            self._end("failed")
        else:
            shadow, answered = self._sample.variant, sampled.variant
            self._observe(Compared("shadow", shadow, answered, found, sampled.boxes))
            self._end("done")
        finally:
            self._room.release()

    def _end(self, outcome: Outcome) -> None:
        self._observe(Shadowed(self._sample.variant, outcome))
