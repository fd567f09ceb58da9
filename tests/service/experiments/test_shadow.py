"""The second answer: it comes after the first, when nobody waits, and not at all under load."""

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
from service.experiments.events import Assigned, Compared, Shadowed
from service.experiments.shadow import MOST, Shadow
from service.experiments.split import Experiment, Sample, Split
from service.inference.detector import Detector
from service.inference.pipeline import Pipeline
from service.inference.results import Answer
from service.inference.semaphore import FairSemaphore
from service.inference.variants import VariantSet
from service.vision.image import Photo
from service.vision.postprocess import Query
from tests.fakes import PATIENCE_S, FakeEngine, variants_of
from tests.service.live import FP32_RAW, INT8_RAW, two_variants, wait_until
from tests.service.pictures import jpeg

ANY = Query()
ALWAYS = Experiment(shadow=Sample("fp32", 1.0))


class Watched:
    """A pipeline and what it told."""

    def __init__(
        self, variants: VariantSet[Detector], experiment: Experiment, capacity: int
    ) -> None:
        self.seen: list[object] = []
        self.pipeline = Pipeline(
            variants, capacity, 1_000_000, self.seen.append, experiment=experiment
        )

    def of(self, kind: type) -> list:
        return [seen for seen in self.seen if isinstance(seen, kind)]

    def ends(self) -> list[str]:
        return [seen.outcome for seen in self.of(Shadowed)]

    def ask(self, variant: str | None = None, query: Query = ANY) -> Answer:
        return asyncio.run(self.pipeline.detect(jpeg(), variant, query))

    def crowd(self, size: int, engine: FakeEngine) -> None:
        """So many requests at once that are in the house together."""

        async def together() -> None:
            engine.gate.clear()
            guests = [
                asyncio.create_task(self.pipeline.detect(jpeg(), None, ANY)) for _ in range(size)
            ]
            assert await asyncio.to_thread(engine.entered.wait, PATIENCE_S)
            engine.gate.set()
            await asyncio.gather(*guests)

        asyncio.run(together())


@contextmanager
def watched(
    variants: VariantSet[Detector], experiment: Experiment = ALWAYS, capacity: int = 16
) -> Iterator[Watched]:
    watch = Watched(variants, experiment, capacity)
    try:
        yield watch
    finally:
        watch.pipeline.close()


def test_the_answer_does_not_wait_for_the_shadow():
    variants, fp32, _ = two_variants()
    with watched(variants) as watch:
        fp32.gate.clear()
        answer = watch.ask()
        assert answer.variant == "int8"
        assert fp32.entered.wait(PATIENCE_S)
        assert watch.ends() == []
        fp32.gate.set()
        wait_until(lambda: watch.ends() == ["done"])
    (compared,) = watch.of(Compared)
    assert (compared.source, compared.a, compared.b) == ("shadow", "fp32", "int8")
    assert compared.boxes_a.class_ids.tolist() == [0, 2]
    assert compared.boxes_b is answer.detections
    assert watch.of(Answer) == [answer]  # what the shadow takes is nobody's latency


def test_both_see_the_same_tensor_at_the_same_thresholds():
    variants, fp32, int8 = two_variants()
    with watched(variants) as watch:
        watch.ask(query=Query(conf=0.7, classes=frozenset({0, 2})))
        wait_until(lambda: watch.ends() == ["done"])
    (compared,) = watch.of(Compared)
    assert compared.boxes_a.class_ids.tolist() == compared.boxes_b.class_ids.tolist() == [0]
    assert fp32.tensor is int8.tensor


def test_whoever_waits_for_the_engine_comes_first():
    order = []

    class Noting(FakeEngine):
        def __init__(self, name, raw):
            super().__init__(raw)
            self.name = name

        def infer(self, tensor):
            order.append(self.name)
            return super().infer(tensor)

    int8 = Noting("int8", INT8_RAW)
    with watched(variants_of({"fp32": Noting("fp32", FP32_RAW), "int8": int8})) as watch:
        watch.crowd(3, int8)
        wait_until(lambda: len(watch.ends()) == 3)
    assert order == ["int8"] * 3 + ["fp32"] * 3


def test_it_goes_on_only_when_the_house_is_empty_again():
    variants, fp32, int8 = two_variants()
    with watched(variants) as watch:
        fp32.gate.clear()
        watch.crowd(2, int8)
        assert fp32.entered.wait(PATIENCE_S)

        async def meanwhile() -> None:
            int8.entered.clear()
            int8.gate.clear()
            guest = asyncio.create_task(watch.pipeline.detect(jpeg(), "int8", ANY))
            await asyncio.sleep(0.1)  # it is in the house, the engine still with the shadow
            fp32.gate.set()
            assert await asyncio.to_thread(int8.entered.wait, PATIENCE_S)
            assert (fp32.calls, watch.ends()) == (1, ["done"])
            int8.gate.set()
            await guest

        asyncio.run(meanwhile())
        wait_until(lambda: watch.ends() == ["done"] * 3)


def test_under_load_it_is_dropped_and_its_memory_is_bounded():
    alive = weakref.WeakValueDictionary()

    class Remembering(FakeEngine):
        def infer(self, tensor):
            alive[self.calls] = tensor
            return super().infer(tensor)

    fp32, int8 = FakeEngine(FP32_RAW), Remembering(INT8_RAW)
    with watched(variants_of({"fp32": fp32, "int8": int8})) as watch:
        fp32.gate.clear()
        watch.crowd(12, int8)
        int8.tensor = None
        assert watch.ends() == ["dropped"] * (12 - MOST)
        gc.collect()
        assert len(alive) == MOST
        fp32.gate.set()
        wait_until(lambda: watch.ends().count("done") == MOST)
        watch.ask()
        wait_until(lambda: watch.ends().count("done") == MOST + 1)  # there is room again


def test_closing_waits_for_the_one_that_runs_and_forgets_the_others():
    variants, fp32, int8 = two_variants()
    with watched(variants) as watch:
        fp32.gate.clear()
        watch.crowd(3, int8)
        assert fp32.entered.wait(PATIENCE_S)
        closing = threading.Thread(target=watch.pipeline.close)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        assert not fp32.closed
        fp32.gate.set()
        closing.join(PATIENCE_S)
    assert (fp32.calls, fp32.closed, int8.closed) == (1, True, True)
    assert watch.ends() == ["done"]


@pytest.mark.parametrize("failure", [EngineFailed("out of memory"), ValueError("out of memory")])
def test_a_failing_shadow_is_nobodys_failure(failure, caplog):
    variants, fp32, _ = two_variants()
    with watched(variants) as watch:
        fp32.failure = failure
        for count in range(1, MOST + 3):
            assert watch.ask().variant == "int8"
            wait_until(lambda count=count: len(watch.ends()) == count)
        assert set(watch.ends()) == {"failed"}
        assert "the shadow fp32 failed: out of memory" in caplog.text
        assert ("Traceback" in caplog.text) == isinstance(failure, ValueError)
        fp32.failure = None
        watch.ask()
        wait_until(lambda: watch.ends()[-1] == "done")


def test_what_has_no_other_answer_is_not_sampled():
    variants, fp32, int8 = two_variants()
    with watched(variants) as watch:
        watch.ask("fp32")
        asyncio.run(watch.pipeline.compare(jpeg(), "fp32", "int8", ANY))
        asyncio.run(watch.pipeline.infer(np.zeros((1, 3, 64, 64), np.float32), "int8"))
        wait_until(lambda: len(watch.of(Compared)) == 1)
    assert watch.ends() == []
    assert watch.of(Compared)[0].source == "compare"
    assert (fp32.calls, int8.calls) == (2, 2)


def test_the_sample_has_its_share():
    variants, *_ = two_variants()
    seen = []
    detector = variants.get("fp32")[1]
    shadow = Shadow(Sample("fp32", 0.25), detector, FairSemaphore(1), seen.append, random.Random(5))
    prepared = detector.preprocess(Photo.from_pixels(np.zeros((64, 64, 3), np.uint8)))
    found = detector.postprocess(INT8_RAW.copy(), prepared, ANY)
    answer = Answer("int8", 64, 64, found, {})
    for _ in range(400):
        if (sampled := shadow.sample(answer, prepared, ANY)) is not None:
            shadow.enqueue(sampled)
            shadow.work_off(lambda: True)
    done = [what for what in seen if what == Shadowed("fp32", "done")]
    assert 75 <= len(done) <= 125
    assert not shadow.waits


def test_the_split_chooses_where_no_variant_is_named():
    variants, *_ = two_variants()
    split = Split({"int8": 1, "fp32": 1})
    with watched(variants, Experiment(split)) as watch:
        clients = [f"camera-{number}" for number in range(20)]
        chosen = [watch.pipeline.choose(None, client) for client in clients]
        assert set(chosen) == {"fp32", "int8"}
        assert chosen == [watch.pipeline.choose("auto", client) for client in clients]
        assert watch.of(Assigned) == [Assigned(name) for name in chosen * 2]
        assert {watch.pipeline.choose("fp32", client) for client in clients} == {"fp32"}
        assert len(watch.seen) == 40
    with watched(two_variants()[0], Experiment()) as watch:
        assert {watch.pipeline.choose(None, client) for client in clients} == {"int8"}
        assert watch.seen == []
