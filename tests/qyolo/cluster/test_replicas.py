"""Calls of replicas, without a cluster: what is answered by one is what the test says."""

import asyncio
import warnings

import numpy as np
import pytest

pytest.importorskip("ray", reason="the extra cluster is missing")

with warnings.catch_warnings(action="ignore"):  # Ray Serve's own, of pydantic
    from qyolo.cluster import replicas as module

from service.errors import CorruptImage, EngineFailed, NotReady, VariantFailed
from service.inference.backend import ImageRequest
from service.inference.results import Answer, EngineFailure, Retried
from service.vision.detections import Detections
from service.vision.postprocess import Query

IMAGE = ImageRequest(b"", Query())
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
ANSWER = Answer("int8", 1, 1, NOTHING, {"queue": 0.0, "total": 0.0})


class Handle:
    """A handle whose replicas return these one after the other, and the last one for ever."""

    def __init__(self, *outcomes: object) -> None:
        self._outcomes = list(outcomes)
        self.detect = self

    async def remote(self, compatibility: str, image: ImageRequest) -> object:
        return self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(module, "PAUSES_S", (0.0, 0.0))


def detected(*outcomes: object) -> tuple[Answer, list[object]]:
    events: list[object] = []
    replicas = module.Replicas("int8", Handle(*outcomes), "", events.append)
    return asyncio.run(replicas.detect(IMAGE)), events


def test_a_replica_whose_engine_has_failed_sends_the_request_to_another():
    answer, events = detected(VariantFailed("int8 failed"), ANSWER)
    assert answer.variant == "int8"
    assert events == [Retried("int8")]


def test_without_another_the_variant_is_not_ready():
    with pytest.raises(NotReady, match="no replica of int8 could answer"):
        detected(VariantFailed("int8 failed"))


def test_a_failure_of_an_engine_is_counted_where_metrics_are_read():
    events: list[object] = []
    replicas = module.Replicas("int8", Handle(EngineFailed("broken")), "", events.append)
    with pytest.raises(EngineFailed):
        asyncio.run(replicas.detect(IMAGE))
    assert events == [EngineFailure("error")]


def test_an_error_for_the_client_is_not_retried():
    with pytest.raises(CorruptImage):
        detected(CorruptImage("truncated"), ANSWER)
