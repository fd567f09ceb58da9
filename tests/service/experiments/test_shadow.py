"""The shadow: it infers images after their responses, while the server is idle."""

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from service.errors import EngineFailed
from service.experiments.events import Compared, Shadowed
from service.experiments.shadow import MAX_QUEUED, Sampled, Shadow
from service.experiments.split import Experiment, Sample
from service.inference.backend import ImageRequest
from service.inference.detector import Detector
from service.inference.pipeline import Pipeline
from service.inference.results import Answer
from service.inference.variants import VariantSet
from service.vision.detections import Detections
from service.vision.postprocess import Query
from tests.fakes import FakeEngine, admission, variants_of
from tests.service.live import FP32_RAW, INT8_RAW, two_variants
from tests.service.pictures import jpeg
from tests.waiting import WAIT_LIMIT_S, wait_until

IMAGE = ImageRequest(jpeg(), Query())


class Shadowing:
    """A pipeline whose int8 answers are all sampled for fp32, and the events that it emits."""

    def __init__(self, variants: VariantSet[Detector]) -> None:
        self.events: list[object] = []
        experiment = Experiment(shadow=Sample("fp32", 1.0))
        self.pipeline = Pipeline(
            variants, admission(), 1_000_000, self.events.append, experiment=experiment
        )

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def outcomes(self) -> list[str]:
        return [event.outcome for event in self.of(Shadowed)]

    def detect(self, variant: str = "int8", query: Query = IMAGE.query) -> Answer:
        answer = asyncio.run(self.pipeline.detect(ImageRequest(IMAGE.data, query), variant))
        sent(answer)
        return answer

    def detect_at_once(self, count: int, engine: FakeEngine) -> None:
        async def together() -> None:
            engine.gate.clear()
            tasks = [asyncio.create_task(self.pipeline.detect(IMAGE, "int8")) for _ in range(count)]
            assert await asyncio.to_thread(engine.entered.wait, WAIT_LIMIT_S)
            engine.gate.set()
            for answer in await asyncio.gather(*tasks):
                sent(answer)

        asyncio.run(together())


def sent(answer: Answer) -> None:
    """Runs the work that follows a response."""
    if answer.after_response is not None:
        answer.after_response()


@contextmanager
def shadowing(variants: VariantSet[Detector]) -> Iterator[Shadowing]:
    running = Shadowing(variants)
    try:
        yield running
    finally:
        running.pipeline.close()


def test_the_answer_does_not_wait_for_the_shadow():
    variants, fp32, _ = two_variants()
    with shadowing(variants) as running:
        fp32.gate.clear()
        answer = running.detect()
        assert answer.variant == "int8"
        assert fp32.entered.wait(WAIT_LIMIT_S)
        assert running.outcomes() == []
        fp32.gate.set()
        wait_until(lambda: running.outcomes() == ["done"])
    (compared,) = running.of(Compared)
    assert (compared.source, compared.a, compared.b) == ("shadow", "fp32", "int8")
    assert compared.boxes_a.class_ids.tolist() == [0, 2]
    assert compared.boxes_b is answer.detections
    assert running.of(Answer) == [answer]  # the shadow's time is in no latency


def test_both_variants_get_the_same_tensor_and_the_same_thresholds():
    variants, fp32, int8 = two_variants()
    with shadowing(variants) as running:
        running.detect(query=Query(conf=0.7, classes=frozenset({0, 2})))
        wait_until(lambda: running.outcomes() == ["done"])
    (compared,) = running.of(Compared)
    assert compared.boxes_a.class_ids.tolist() == compared.boxes_b.class_ids.tolist() == [0]
    assert fp32.image is int8.image


def test_requests_that_wait_for_the_engine_come_first():
    order = []

    class OrderedEngine(FakeEngine):
        def __init__(self, name, raw):
            super().__init__(raw)
            self.name = name

        def infer(self, image):
            order.append(self.name)
            return super().infer(image)

    int8 = OrderedEngine("int8", INT8_RAW)
    with shadowing(variants_of({"fp32": OrderedEngine("fp32", FP32_RAW), "int8": int8})) as running:
        running.detect_at_once(3, int8)
        wait_until(lambda: len(running.outcomes()) == 3)
    assert order == ["int8"] * 3 + ["fp32"] * 3


def test_the_shadow_continues_only_when_the_server_is_idle_again():
    variants, fp32, int8 = two_variants()
    with shadowing(variants) as running:
        fp32.gate.clear()
        running.detect_at_once(2, int8)
        assert fp32.entered.wait(WAIT_LIMIT_S)

        async def meanwhile() -> None:
            int8.entered.clear()
            int8.gate.clear()
            request = asyncio.create_task(running.pipeline.detect(IMAGE, "int8"))
            await asyncio.sleep(0.1)  # it is in progress while the shadow has the engine
            fp32.gate.set()
            assert await asyncio.to_thread(int8.entered.wait, WAIT_LIMIT_S)
            await asyncio.to_thread(wait_until, lambda: running.outcomes() == ["done"])
            assert fp32.calls == 1
            int8.gate.set()
            sent(await request)

        asyncio.run(meanwhile())
        wait_until(lambda: running.outcomes() == ["done"] * 3)


def test_under_load_images_are_dropped_and_the_memory_is_bounded():
    alive = weakref.WeakValueDictionary()

    class RememberingEngine(FakeEngine):
        def infer(self, image):
            alive[self.calls] = image
            return super().infer(image)

    fp32, int8 = FakeEngine(FP32_RAW), RememberingEngine(INT8_RAW)
    with shadowing(variants_of({"fp32": fp32, "int8": int8})) as running:
        fp32.gate.clear()
        running.detect_at_once(12, int8)
        int8.image = None
        running.events[:] = running.of(Shadowed)
        assert running.outcomes() == ["dropped"] * (12 - MAX_QUEUED)
        gc.collect()
        assert len(alive) == MAX_QUEUED
        fp32.gate.set()
        wait_until(lambda: running.outcomes().count("done") == MAX_QUEUED)
        running.detect()
        wait_until(lambda: running.outcomes().count("done") == MAX_QUEUED + 1)


def test_closing_waits_for_the_image_in_the_engine_and_drops_the_others():
    variants, fp32, int8 = two_variants()
    with shadowing(variants) as running:
        fp32.gate.clear()
        running.detect_at_once(3, int8)
        assert fp32.entered.wait(WAIT_LIMIT_S)
        closing = threading.Thread(target=running.pipeline.close)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        assert not fp32.closed
        fp32.gate.set()
        closing.join(WAIT_LIMIT_S)
    assert (fp32.calls, fp32.closed, int8.closed) == (1, True, True)
    assert running.outcomes() == ["done"]


@pytest.mark.parametrize("failure", [EngineFailed("out of memory"), ValueError("out of memory")])
def test_a_failing_shadow_fails_no_request_and_frees_its_place(failure, caplog):
    variants, fp32, _ = two_variants()
    with shadowing(variants) as running:
        fp32.failure = failure
        for count in range(1, MAX_QUEUED + 3):
            assert running.detect().variant == "int8"
            wait_until(lambda count=count: len(running.outcomes()) == count)
        assert set(running.outcomes()) == {"failed"}
        assert "the shadow fp32 failed: out of memory" in caplog.text
        assert ("Traceback" in caplog.text) == isinstance(failure, ValueError)
        fp32.failure = None
        wait_until(lambda: not running.pipeline.failures())
        running.detect()
        wait_until(lambda: running.outcomes()[-1] == "done")


def test_neither_its_own_answers_nor_comparisons_nor_tensors_are_sampled():
    variants, fp32, int8 = two_variants()
    with shadowing(variants) as running:
        running.detect("fp32")
        asyncio.run(running.pipeline.compare(IMAGE, "fp32", "int8"))
        asyncio.run(running.pipeline.infer(np.zeros((1, 3, 64, 64), np.float32), "int8"))
        wait_until(lambda: len(running.of(Compared)) == 1)
    assert running.outcomes() == []
    assert running.of(Compared)[0].source == "compare"
    assert (fp32.calls, int8.calls) == (2, 2)


def test_the_share_of_the_images_is_sampled():
    events = []
    boxes = Detections(*(np.zeros(shape, np.float32) for shape in ((0, 4), 0, 0)))
    shadow = Shadow(
        Sample("fp32", 0.25),
        detect=lambda prepared, query: boxes,
        emit=events.append,
        is_idle=lambda: True,
        submit=lambda work: work(),
    )
    shadow._random = random.Random(5)
    for _ in range(400):
        task = shadow.sample(Sampled("int8", boxes, None, Query()))
        if task is not None:
            task()
    assert 75 <= events.count(Shadowed("fp32", "done")) <= 125
