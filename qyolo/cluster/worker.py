"""A replica of one variant: the pipeline of a plain server, called by the ingress."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from qyolo.cluster.compatibility import Incompatible, compatibility_of
from qyolo.cluster.distribution import fetch
from qyolo.process import set_up_process
from service.errors import ModelUnavailable, ServiceError
from service.inference.admission import Admission
from service.inference.backend import ImageRequest
from service.inference.pipeline import Pipeline, workers_for
from service.inference.results import Answer, RawAnswer
from service.inference.supervision import EngineLimits
from service.inference.variants import load_variants
from service.observability.logs import set_up_logs
from service.settings import Settings
from service.vision.detections import Floats

A = TypeVar("A", Answer, RawAnswer)


class Worker:
    """Loads one variant of a distributed folder on `threads` threads; admits `capacity` requests.

    Errors for the client are returned, not raised: Ray would log them as failures of the replica
    and wrap them in its own.
    """

    def __init__(
        self, model: str, variant: str, settings: Settings, threads: int, capacity: int
    ) -> None:
        set_up_process(serves=True)
        set_up_logs(settings.log_level, settings.log_format)
        variants = load_variants(fetch(model), threads, settings.throughput, only={variant})
        self._variant = variant
        self._compatibility = compatibility_of(variants.manifest)
        admission = Admission(capacity, settings.max_bytes, settings.max_inflight_bytes)
        self._drain_s = settings.drain_s
        self._pipeline = Pipeline(
            variants,
            admission,
            settings.max_pixels,
            workers=workers_for(admission, variants.streams, settings.decode_memory),
            limits=EngineLimits.of(settings.deadline_s, settings.drain_s),
        )

    async def check_health(self) -> None:
        """Ray replaces a replica for which this raises three times in a row."""
        if why := self._pipeline.failures().get(self._variant):
            raise ModelUnavailable(f"{self._variant} failed: {why}")

    async def detect(
        self, compatibility: str, image: ImageRequest
    ) -> Answer | ServiceError | Incompatible:
        return await self._answer(
            compatibility, lambda: self._pipeline.detect(image, self._variant)
        )

    async def infer(
        self, compatibility: str, tensor: Floats
    ) -> RawAnswer | ServiceError | Incompatible:
        return await self._answer(
            compatibility, lambda: self._pipeline.infer(tensor, self._variant)
        )

    async def _answer(
        self, compatibility: str, ask: Callable[[], Awaitable[A]]
    ) -> A | ServiceError | Incompatible:
        if compatibility != self._compatibility:
            return Incompatible()
        try:
            return await ask()
        except ServiceError as exc:
            return exc

    def __del__(self) -> None:
        if hasattr(self, "_pipeline"):  # loading may have failed
            self._pipeline.close(self._drain_s)
