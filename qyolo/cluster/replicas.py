"""One variant's replicas, called by the ingress: if one dies during a request, another gets it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Final

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle

from qyolo.cluster.compatibility import Incompatible
from service.errors import EngineFailed, NotReady, Overloaded, ServiceError, VariantFailed
from service.inference.backend import ImageRequest
from service.inference.results import Answer, EngineFailure, Event, RawAnswer, Retried
from service.inference.timings import Timings
from service.vision.detections import Floats

# The replica or its node died before the answer arrived.
LOST: Final = (
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    ReplicaUnavailableError,
    TaskCancelledError,
    WorkerCrashedError,
)
# Before each retry. Ray may take seconds to notice a dead node; the request's own deadline still
# holds.
PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0)


@dataclass(frozen=True, slots=True)
class Replicas:
    """Calls the replicas of a deployment of `Worker`s, one for each request; Ray chooses which.

    Detection has no side effects, so it can be retried. Transport, Ray's queue and lost tries count
    as `queue` in an answer's timings.
    """

    variant: str
    handle: DeploymentHandle[Any]
    compatibility: str
    emit: Callable[[Event], None]

    async def detect(self, image: ImageRequest) -> Answer:
        """Raises what the worker's pipeline raises, Overloaded, or NotReady after the last try."""
        answer: Answer = await self._call("detect", image)
        return answer

    async def infer(self, tensor: Floats) -> RawAnswer:
        """The same for f32[1,3,height,width]."""
        answer: RawAnswer = await self._call("infer", tensor)
        return answer

    def close(self) -> None:
        """Nothing to close: Ray owns the replicas."""

    async def _call(self, method: str, argument: object) -> Any:
        began = perf_counter()
        for pause_s in (*PAUSES_S, None):
            try:
                outcome = await self._call_once(method, argument)
            except BackPressureError as exc:
                raise Overloaded("every replica is busy; try again shortly") from exc
            except DeploymentUnavailableError as exc:
                raise NotReady(f"{self.variant} could not be deployed") from exc
            except LOST:
                outcome = None
            if isinstance(outcome, EngineFailed):
                self.emit(EngineFailure("error"))
            if isinstance(outcome, ServiceError) and not isinstance(outcome, VariantFailed):
                raise outcome
            if outcome is not None and not isinstance(outcome, Incompatible | VariantFailed):
                return replace(outcome, timings=_since(began, outcome.timings))
            if pause_s is not None:
                self.emit(Retried(self.variant))
                await asyncio.sleep(pause_s)
        raise NotReady(f"no replica of {self.variant} could answer")

    async def _call_once(self, method: str, argument: object) -> Any:
        response = getattr(self.handle, method).remote(self.compatibility, argument)
        try:
            return await response
        except asyncio.CancelledError:  # the client disconnected, or its deadline has passed
            response.cancel()
            raise


def _since(began: float, timings: Timings) -> Timings:
    total = perf_counter() - began
    return {**timings, "queue": timings["queue"] + total - timings["total"], "total": total}
