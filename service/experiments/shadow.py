"""The shadow: a variant that infers a sample of the others' images while the server is idle.

It measures how far two variants agree on served images. No response waits for it.
"""

import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Final

from service.errors import ServiceError
from service.experiments.events import Compared, Outcome, Shadowed
from service.experiments.split import Sample
from service.vision.detections import Detections
from service.vision.postprocess import Query
from service.vision.preprocess import Prepared

MAX_QUEUED: Final = 4  # prepared images kept for it, 1.2 MiB each at 640x640; more are dropped

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """The boxes of the variant that answered, and the same input for the shadow."""

    variant: str
    boxes: Detections
    prepared: Prepared
    query: Query


class Shadow:
    """A queue of sampled images, which one thread processes while `is_idle()`.

    `detect` returns the shadow's boxes of an input; `submit` calls a function in another thread.
    """

    def __init__(
        self,
        sample: Sample,
        detect: Callable[[Prepared, Query], Detections],
        emit: Callable[[Compared | Shadowed], None],
        is_idle: Callable[[], bool],
        submit: Callable[[Callable[[], None]], None],
    ) -> None:
        self._sample = sample
        self._detect = detect
        self._emit = emit
        self._is_idle = is_idle
        self._submit = submit
        self._random = random.Random()
        self._queue: deque[Sampled] = deque()  # the first one is worked on
        self._running = Lock()
        self._is_closed = False

    def sample(self, sampled: Sampled) -> Callable[[], None] | None:
        """Choose an image at random; the returned function queues it after its response is sent."""
        is_own = sampled.variant == self._sample.variant
        if is_own or self._random.random() >= self._sample.share:
            return None
        return partial(self.enqueue, sampled)

    def enqueue(self, sampled: Sampled) -> None:
        """Queue an image, or drop it when the queue is full."""
        if len(self._queue) < MAX_QUEUED:
            self._queue.append(sampled)
            self.resume()
        else:
            self._end("dropped")

    def resume(self) -> None:
        """Process the queue in another thread, if the server is idle."""
        if self._has_work() and not self._running.locked():
            self._submit(self._run)

    def close(self) -> None:
        """Do not process the images that are still queued."""
        self._is_closed = True

    def _has_work(self) -> bool:
        return bool(self._queue) and self._is_idle() and not self._is_closed

    def _run(self) -> None:
        if not self._running.acquire(blocking=False):
            return
        try:
            while self._has_work():
                self._compare(self._queue[0])
        finally:
            self._running.release()
        self.resume()  # an image may have been queued just before the release

    def _compare(self, sampled: Sampled) -> None:
        shadow = self._sample.variant
        try:
            boxes = self._detect(sampled.prepared, sampled.query)
        except Exception as exc:
            unexpected = None if isinstance(exc, ServiceError) else exc
            log.error("the shadow %s failed: %s", shadow, exc, exc_info=unexpected)
            self._end("failed")
        else:
            self._emit(Compared("shadow", shadow, sampled.variant, boxes, sampled.boxes))
            self._end("done")
        finally:
            self._queue.popleft()

    def _end(self, outcome: Outcome) -> None:
        self._emit(Shadowed(self._sample.variant, outcome))
