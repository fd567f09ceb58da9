import asyncio
import io
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from service.errors import CorruptImage, EngineFailed, NotAnImage, Overloaded, VariantNotFound
from service.inference.pipeline import Pipeline
from service.inference.results import Comparison
from service.inference.variants import VariantSet
from service.vision.postprocess import Query
from tests.fakes import PATIENCE_S, FakeEngine, variants_of
from tests.service.live import FP32_RAW, INT8_RAW, two_variants
from tests.service.pictures import jpeg

STAGES = {"decode", "preprocess", "queue", "infer", "postprocess", "total"}


@contextmanager
def opened(variants, capacity=4, observe=lambda answer: None):
    pipeline = Pipeline(variants, capacity, 1_000_000, observe)
    try:
        yield pipeline
    finally:
        pipeline.close()


async def entered(engine: FakeEngine) -> None:
    assert await asyncio.to_thread(engine.entered.wait, PATIENCE_S)


async def settled(condition) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def room(pipeline: Pipeline) -> bool:
    try:
        pipeline.ensure_room()
    except Overloaded:
        return False
    return True


def test_detect_answers_boxes_sizes_and_every_stage_once():
    seen = []
    variants, *_ = two_variants()
    with opened(variants, observe=seen.append) as pipeline:
        answer = asyncio.run(pipeline.detect(jpeg(), None, Query()))
    assert answer.variant == "int8"
    assert (answer.width, answer.height) == (200, 100)
    assert answer.detections.class_ids.tolist() == [0, 1]
    assert set(answer.timings) == STAGES
    assert answer.picture is None
    assert seen == [answer]


def test_time_in_the_engine_is_infer_and_time_before_it_is_queue():
    engine = FakeEngine(FP32_RAW)

    async def two() -> tuple:
        engine.gate.clear()
        first = asyncio.create_task(pipeline.detect(jpeg(), None, Query()))
        await entered(engine)
        second = asyncio.create_task(pipeline.detect(jpeg(), None, Query()))
        await asyncio.sleep(0.2)
        engine.gate.set()
        return await first, await second

    with opened(variants_of({"fp32": engine})) as pipeline:
        first, second = asyncio.run(two())
    assert first.timings["infer"] >= 0.2
    assert second.timings["infer"] < 0.1
    assert second.timings["queue"] > 0.1
    assert second.timings["total"] > 0.2


def test_a_picture_is_drawn_on_the_source_image():
    with opened(variants_of({"fp32": FakeEngine(FP32_RAW)})) as pipeline:
        answer = asyncio.run(pipeline.detect(jpeg(), None, Query(), "image/png"))
    assert answer.picture is not None
    assert Image.open(io.BytesIO(answer.picture)).size == (200, 100)


def test_compare_decodes_once_and_observes_both():
    seen = []
    variants, fp32, int8 = two_variants()
    with opened(variants, observe=seen.append) as pipeline:
        both = asyncio.run(pipeline.compare(jpeg(), "fp32", "int8", Query()))
    a, b = both.a, both.b
    assert both.picture is None
    assert seen[:2] == [a, b]
    assert (seen[2].a, seen[2].b, seen[2].source) == ("fp32", "int8", "compare")
    assert (a.variant, b.variant) == ("fp32", "int8")
    assert a.timings["decode"] == b.timings["decode"]
    assert fp32.tensor is int8.tensor


def test_the_time_of_the_first_variant_is_not_in_the_second_ones():
    variants, fp32, _ = two_variants()

    async def slow_first() -> Comparison:
        fp32.gate.clear()
        both = asyncio.create_task(pipeline.compare(jpeg(), "fp32", "int8", Query()))
        await entered(fp32)
        await asyncio.sleep(0.3)
        fp32.gate.set()
        return await both

    with opened(variants) as pipeline:
        both = asyncio.run(slow_first())
    assert both.a.timings["total"] >= 0.3
    assert both.b.timings["total"] < 0.3


def test_both_sides_are_drawn_in_one_picture_on_request():
    variants, *_ = two_variants()
    with opened(variants) as pipeline:
        both = asyncio.run(pipeline.compare(jpeg(), "fp32", "int8", Query(), "image/png"))
    assert len(both.a.detections) == 2
    picture = Image.open(io.BytesIO(both.picture))
    assert picture.format == "PNG"
    assert picture.width > 2 * both.a.width


class Crowded(FakeEngine):
    """Knows how many of its kind were at work at once."""

    inside, most = 0, 0
    counting = threading.Lock()

    def infer(self, tensor):
        with Crowded.counting:
            Crowded.inside += 1
            Crowded.most = max(Crowded.most, Crowded.inside)
        time.sleep(0.01)
        with Crowded.counting:
            Crowded.inside -= 1
        return super().infer(tensor)


@pytest.mark.parametrize("streams", [1, 2])
def test_no_more_images_are_inferred_at_once_than_there_are_streams(streams, monkeypatch):
    monkeypatch.setattr(Crowded, "most", 0)
    fake = variants_of({"fp32": Crowded(FP32_RAW), "int8": Crowded(INT8_RAW)})
    detectors = dict(map(fake.get, fake.names))
    variants = VariantSet(fake.manifest, detectors, streams=streams)

    async def many() -> None:
        names = ["fp32", "int8"] * 4
        tensor = np.zeros((1, 3, 64, 64), np.float32)
        await asyncio.gather(
            *(pipeline.detect(jpeg(), name, Query()) for name in names),
            *(pipeline.infer(tensor, name) for name in names),
        )

    with opened(variants, capacity=16) as pipeline:
        asyncio.run(many())
    assert Crowded.most == streams


def test_a_tensor_gets_the_raw_output_and_is_observed():
    seen = []
    variants, fp32, _ = two_variants()
    tensor = np.zeros((1, 3, 64, 64), np.float32)
    with opened(variants, observe=seen.append) as pipeline:
        answer = asyncio.run(pipeline.infer(tensor, "fp32"))
    assert answer.variant == "fp32"
    assert fp32.tensor is tensor
    np.testing.assert_array_equal(answer.output, FP32_RAW)
    assert set(answer.timings) == {"queue", "infer", "total"}
    assert seen == [answer]


def test_the_house_holds_its_capacity_and_not_one_more():
    engine = FakeEngine(FP32_RAW)

    async def crowd() -> list:
        engine.gate.clear()
        guests = [asyncio.create_task(pipeline.detect(jpeg(), None, Query())) for _ in range(3)]
        await entered(engine)
        with pytest.raises(Overloaded):
            await pipeline.detect(jpeg(), None, Query())
        with pytest.raises(Overloaded):
            await pipeline.compare(jpeg(), None, None, Query())
        with pytest.raises(Overloaded):
            await pipeline.infer(np.zeros((1, 3, 64, 64), np.float32), None)
        engine.gate.set()
        return [len((await guest).detections) for guest in guests]

    with opened(variants_of({"fp32": engine}), capacity=3) as pipeline:
        assert asyncio.run(crowd()) == [2, 2, 2]
        assert room(pipeline)


def test_work_that_runs_keeps_the_slot_of_a_caller_that_left():
    engine = FakeEngine(FP32_RAW)

    async def leave() -> None:
        engine.gate.clear()
        task = asyncio.create_task(pipeline.detect(jpeg(), None, Query()))
        await entered(engine)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not room(pipeline)
        engine.gate.set()
        await settled(lambda: room(pipeline))

    with opened(variants_of({"fp32": engine}), capacity=1) as pipeline:
        asyncio.run(leave())


def test_work_that_has_not_begun_is_dropped_with_its_caller():
    engine = FakeEngine(FP32_RAW)

    async def leave() -> None:
        engine.gate.clear()
        first = asyncio.create_task(pipeline.detect(jpeg(), None, Query()))
        await entered(engine)
        second = asyncio.create_task(pipeline.detect(jpeg(), None, Query()))
        await settled(lambda: not room(pipeline))
        second.cancel()
        await settled(lambda: room(pipeline))
        engine.gate.set()
        await first

    with opened(variants_of({"fp32": engine}), capacity=2) as pipeline:
        asyncio.run(leave())
    assert engine.calls == 1


def test_a_failure_after_its_caller_left_is_silent_and_frees_the_slot():
    engine = FakeEngine(FP32_RAW)
    engine.failure = EngineFailed("broken")
    complaints = []

    async def leave() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        engine.gate.clear()
        task = asyncio.create_task(pipeline.detect(jpeg(), None, Query()))
        await entered(engine)
        task.cancel()
        await asyncio.wait([task])
        engine.gate.set()
        await settled(lambda: room(pipeline))

    with opened(variants_of({"fp32": engine}), capacity=1) as pipeline:
        asyncio.run(leave())
    assert complaints == []


@pytest.mark.parametrize(
    ("data", "variant", "error"),
    [
        (b"hello", None, NotAnImage),
        (jpeg()[:-500], None, CorruptImage),
        (jpeg(), "fp16", VariantNotFound),
    ],
)
def test_an_error_frees_the_slot(data, variant, error):
    with opened(variants_of({"fp32": FakeEngine(FP32_RAW)}), capacity=1) as pipeline:
        with pytest.raises(error):
            asyncio.run(pipeline.detect(data, variant, Query()))
        assert room(pipeline)


def test_close_frees_the_engines():
    variants, fp32, int8 = two_variants()
    with opened(variants):
        pass
    assert fp32.closed
    assert int8.closed


def test_a_query_reaches_the_boxes():
    with opened(variants_of({"fp32": FakeEngine(FP32_RAW)})) as pipeline:
        answer = asyncio.run(pipeline.detect(jpeg(), None, Query(classes=frozenset({2}))))
    assert answer.detections.class_ids.tolist() == [2]
    np.testing.assert_allclose(answer.detections.xyxy, [[25, 12.5, 50, 37.5]])
