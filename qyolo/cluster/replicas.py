"""The replicas of one variant as a front sees them: one answers, and if it is lost another does."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
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

from qyolo.cluster.compatibility import OtherModel
from service.errors import NotReady, Overloaded, ServiceError
from service.inference.backend import ImageRequest
from service.inference.events import Event, Retried
from service.inference.results import Answer, RawAnswer
from service.inference.timings import Timings
from service.vision.detections import Floats

# A replica or its node has gone, with the request or with the answer.
LOST: Final = (
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    ReplicaUnavailableError,
    TaskCancelledError,
    WorkerCrashedError,
)
# Before each further try. Ray may take seconds to see that a node has gone; the request's own
# deadline goes on meanwhile.
PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0)


class Replicas:
    """Asks one replica of a deployment of `Worker`s at a time, which Ray chooses.

    A detection changes nothing, so it may be asked for again. Its time on the way, in Ray's queue
    and of lost tries counts as `queue`.
    """

    def __init__(
        self,
        variant: str,
        handle: DeploymentHandle[Any],
        contract: str,
        observe: Callable[[Event], None],
    ) -> None:
        self._variant = variant
        self._handle = handle
        self._contract = contract
        self._observe = observe

    async def detect(self, image: ImageRequest) -> Answer:
        """Raises what the worker's pipeline does, Overloaded, and NotReady after the last try."""
        began = perf_counter()
        answer: Answer = await self._ask("detect", image)
        return replace(answer, timings=_since(began, answer.timings))

    async def infer(self, tensor: Floats) -> RawAnswer:
        """The same for a tensor that the caller has prepared."""
        began = perf_counter()
        answer: RawAnswer = await self._ask("infer", tensor)
        return replace(answer, timings=_since(began, answer.timings))

    def close(self) -> None:
        """Ray owns the replicas."""

    async def _ask(self, method: str, *given: object) -> Any:
        for pause_s in (*PAUSES_S, None):
            try:
                outcome = await self._once(method, *given)
            except BackPressureError as exc:
                raise Overloaded("every replica is busy; try again shortly") from exc
            except DeploymentUnavailableError as exc:
                raise NotReady(f"{self._variant} could not be deployed") from exc
            except LOST:
                outcome = None
            if isinstance(outcome, ServiceError):
                raise outcome
            if outcome is not None and not isinstance(outcome, OtherModel):
                return outcome
            if pause_s is not None:
                self._observe(Retried(self._variant))
                await asyncio.sleep(pause_s)
        raise NotReady(f"no replica of {self._variant} could answer")

    async def _once(self, method: str, *given: object) -> Any:
        response = getattr(self._handle, method).remote(self._contract, *given)
        try:
            return await response
        except asyncio.CancelledError:  # the client has gone, or its time is up
            response.cancel()
            raise


def _since(began: float, timings: Timings) -> Timings:
    total = perf_counter() - began
    return {**timings, "queue": timings["queue"] + total - timings["total"], "total": total}
