import asyncio
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from service.errors import EngineFailed
from service.inference.backend import ImageRequest
from service.inference.pipeline import Pipeline
from service.inference.results import Comparison
from service.inference.variants import VariantSet
from service.vision.postprocess import Query
from tests.fakes import FakeEngine, admission, variants_of
from tests.service.live import FP32_RAW, INT8_RAW, STAGES, two_variants
from tests.service.pictures import gradient, jpeg
from tests.waiting import WAIT_LIMIT_S

IMAGE = ImageRequest(jpeg(), Query())
TENSOR = np.zeros((1, 3, 64, 64), np.float32)


@contextmanager
def opened(variants, capacity=4, emit=lambda event: None):
    pipeline = Pipeline(variants, admission(capacity), 1_000_000, emit)
    try:
        yield pipeline
    finally:
        pipeline.close()


@pytest.fixture
def engine():
    return FakeEngine(FP32_RAW)


async def entered(engine: FakeEngine) -> None:
    assert await asyncio.to_thread(engine.entered.wait, WAIT_LIMIT_S)


async def settled(condition) -> None:
    async with asyncio.timeout(WAIT_LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)


def test_each_answer_to_an_image_or_a_tensor_is_emitted_with_its_stages():
    events = []
    variants, fp32, _ = two_variants()
    with opened(variants, emit=events.append) as pipeline:
        answer = asyncio.run(pipeline.detect(IMAGE, "int8"))
        raw = asyncio.run(pipeline.infer(TENSOR, "fp32"))
    assert events == [answer, raw]
    assert (answer.variant, raw.variant) == ("int8", "fp32")
    assert (answer.width, answer.height) == (200, 100)
    assert answer.detections.class_ids.tolist() == [0, 1]
    assert answer.picture is None
    assert fp32.tensor is TENSOR
    np.testing.assert_array_equal(raw.output, FP32_RAW)
    assert set(answer.timings) == STAGES
    assert set(raw.timings) == {"queue", "infer", "total"}


def test_time_in_the_engine_is_infer_and_time_before_it_is_queue(engine):
    async def two() -> tuple:
        engine.gate.clear()
        first = asyncio.create_task(pipeline.detect(IMAGE, "fp32"))
        await entered(engine)
        second = asyncio.create_task(pipeline.detect(IMAGE, "fp32"))
        await asyncio.sleep(0)  # its clock starts
        await asyncio.sleep(0.2)
        engine.gate.set()
        return await first, await second

    with opened(variants_of({"fp32": engine})) as pipeline:
        first, second = asyncio.run(two())
    assert first.timings["infer"] >= 0.2
    assert second.timings["infer"] < 0.1
    assert second.timings["queue"] > 0.1
    assert second.timings["total"] > 0.2


@pytest.mark.parametrize("decoded", [False, True])
def test_a_renderer_gets_the_source_pixels_and_the_answers(decoded):
    def render(pixels, answers) -> bytes:
        return f"{pixels.shape} {[answer.variant for answer in answers]}".encode()

    # So large that the JPEG is decoded at an eighth of its size for the engine.
    data = np.asarray(gradient(1200, 600)) if decoded else jpeg(1200, 600)
    image = ImageRequest(data, Query(), render=render)
    variants, *_ = two_variants()
    with opened(variants) as pipeline:
        answer = asyncio.run(pipeline.detect(image, "fp32"))
        both = asyncio.run(pipeline.compare(image, "fp32", "int8"))
    assert answer.picture == b"(600, 1200, 3) ['fp32']"
    assert both.picture == b"(600, 1200, 3) ['fp32', 'int8']"


def test_work_that_panics_ends_with_an_error_that_a_handler_can_answer():
    class Panic(BaseException):
        pass

    def render(pixels, answers) -> bytes:
        raise Panic

    variants, *_ = two_variants()
    with opened(variants) as pipeline, pytest.raises(RuntimeError, match="Panic"):
        asyncio.run(pipeline.detect(ImageRequest(jpeg(), Query(), render=render), "fp32"))


def test_compare_decodes_once_and_emits_both_answers():
    events = []
    variants, fp32, int8 = two_variants()
    with opened(variants, emit=events.append) as pipeline:
        both = asyncio.run(pipeline.compare(IMAGE, "fp32", "int8"))
    a, b = both.a, both.b
    assert both.picture is None
    assert events[:2] == [a, b]
    assert (events[2].a, events[2].b, events[2].source) == ("fp32", "int8", "compare")
    assert (a.variant, b.variant) == ("fp32", "int8")
    assert a.timings["decode"] == b.timings["decode"]
    assert fp32.image is int8.image


def test_the_time_of_the_first_variant_is_not_in_that_of_the_second():
    variants, fp32, _ = two_variants()

    async def slow_first() -> Comparison:
        fp32.gate.clear()
        both = asyncio.create_task(pipeline.compare(IMAGE, "fp32", "int8"))
        await entered(fp32)
        await asyncio.sleep(0.3)
        fp32.gate.set()
        return await both

    with opened(variants) as pipeline:
        both = asyncio.run(slow_first())
    assert both.a.timings["total"] >= 0.3
    assert both.b.timings["total"] < 0.3


class CountingEngine(FakeEngine):
    """Counts how many of its kind run at once."""

    inside, most = 0, 0
    lock = threading.Lock()

    def infer(self, image):
        with self.lock:
            CountingEngine.inside += 1
            CountingEngine.most = max(self.most, self.inside)
        time.sleep(0.01)
        with self.lock:
            CountingEngine.inside -= 1
        return super().infer(image)


@pytest.mark.parametrize("streams", [1, 2])
def test_no_more_images_are_inferred_at_once_than_there_are_streams(streams, monkeypatch):
    monkeypatch.setattr(CountingEngine, "most", 0)
    fake = variants_of({"fp32": CountingEngine(FP32_RAW), "int8": CountingEngine(INT8_RAW)})
    detectors = {name: fake.get(name) for name in fake.names}
    variants = VariantSet(fake.manifest, detectors, streams=streams)

    async def many() -> None:
        names = ["fp32", "int8"] * 4
        await asyncio.gather(
            *(pipeline.detect(IMAGE, name) for name in names),
            *(pipeline.infer(TENSOR, name) for name in names),
        )

    with opened(variants, capacity=16) as pipeline:
        asyncio.run(many())
    assert CountingEngine.most == streams


@pytest.mark.parametrize("failure", [None, EngineFailed("broken")])
def test_a_cancelled_request_keeps_its_slot_until_the_engine_is_done_and_logs_nothing(
    engine, failure
):
    engine.failure = failure
    reported = []

    async def cancel() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
        engine.gate.clear()
        task = asyncio.create_task(pipeline.detect(IMAGE, "fp32"))
        await entered(engine)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pipeline.admission.is_full
        engine.gate.set()
        await settled(lambda: not pipeline.admission.is_full)

    with opened(variants_of({"fp32": engine}), capacity=1) as pipeline:
        asyncio.run(cancel())
    assert reported == []
