"""A replica of one variant: the pipeline that a plain server has, asked by fronts."""

from collections.abc import Awaitable
from typing import TypeVar

from qyolo.cluster.compatibility import OtherModel, contract_of
from qyolo.cluster.distribution import fetch
from qyolo.process import set_up_process
from service.errors import ServiceError
from service.inference.admission import Admission
from service.inference.backend import ImageRequest
from service.inference.pipeline import Pipeline
from service.inference.results import Answer, RawAnswer
from service.inference.variants import load_variants
from service.observability.logs import set_up_logs
from service.settings import Settings
from service.vision.detections import Floats

A = TypeVar("A", Answer, RawAnswer)


class Worker:
    """Loads one variant of a shipped folder on `threads` threads; takes `capacity` images at once.

    An error that the client is to read is returned, not raised: Ray would log it as a failure of
    the replica, and hand it on in its own words.
    """

    def __init__(
        self, model: str, variant: str, settings: Settings, threads: int, capacity: int
    ) -> None:
        set_up_process(serves=True)
        set_up_logs(settings.log_level, settings.log_format)
        variants = load_variants(fetch(model), threads, settings.throughput, only={variant})
        self._variant = variant
        self._contract = contract_of(variants.manifest)
        admission = Admission(capacity, settings.max_bytes, settings.max_inflight_bytes)
        self._pipeline = Pipeline(variants, admission, settings.max_pixels)

    async def detect(
        self, contract: str, image: ImageRequest
    ) -> Answer | ServiceError | OtherModel:
        if contract != self._contract:
            return OtherModel()
        return await _told(self._pipeline.detect(image, self._variant))

    async def infer(self, contract: str, tensor: Floats) -> RawAnswer | ServiceError | OtherModel:
        if contract != self._contract:
            return OtherModel()
        return await _told(self._pipeline.infer(tensor, self._variant))

    def __del__(self) -> None:
        if hasattr(self, "_pipeline"):  # the model may not have come up
            self._pipeline.close()


async def _told(answering: Awaitable[A]) -> A | ServiceError:
    try:
        return await answering
    except ServiceError as exc:
        return exc
