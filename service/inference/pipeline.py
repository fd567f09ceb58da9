"""The backend of one process: bytes -> boxes, many requests at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from service.engines.cpu import usable_threads
from service.experiments.collection import Collection
from service.experiments.events import Compared
from service.experiments.shadow import Sampled, Shadow
from service.experiments.split import Experiment, Sample
from service.inference.admission import Admission, decode_workers
from service.inference.backend import ImageRequest
from service.inference.detector import Detector
from service.inference.results import Answer, Comparison, Event, RawAnswer
from service.inference.semaphore import Waiter
from service.inference.timings import Stopwatch
from service.inference.variants import VariantChoice, VariantSet
from service.inference.workers import Workers
from service.vision.detections import Detections, Floats
from service.vision.image import Photo, Pixels, full_size
from service.vision.postprocess import Query
from service.vision.preprocess import Prepared

NO_EXPERIMENT: Final = Experiment()

T = TypeVar("T")


class Pipeline:
    """Implements `InferenceBackend` with the engines of this process.

    A request keeps one thread from decoding to rendering, so that what it has just written is in
    the cache of that core. All variants share the permits to infer: two engines at once would
    compete for the cores, and a comparison would measure that instead.
    """

    def __init__(
        self,
        variants: VariantSet[Detector],
        admission: Admission,
        max_pixels: int,
        emit: Callable[[Event], None] = lambda event: None,
        collection: Collection | None = None,
        experiment: Experiment = NO_EXPERIMENT,
    ) -> None:
        self.variants = variants
        self.admission = admission
        self.choice = VariantChoice(variants, experiment, emit)
        self._max_pixels = max_pixels
        self._emit = emit
        self._collection = collection
        threads = min(admission.capacity, variants.streams + decode_workers(usable_threads()))
        self._workers = Workers(threads, variants.streams)
        self._shadow = None if experiment.shadow is None else self._open_shadow(experiment.shadow)

    async def detect(self, image: ImageRequest, variant: str) -> Answer:
        detector, clock = self.variants.get(variant), Stopwatch()

        def work(waiter: Waiter) -> Answer:
            prepared, pixels = self._decode(image, detector, clock)
            answer = self._answer(variant, prepared, image.query, clock, waiter)
            picture = _rendered(image, pixels, [answer])
            sampled = Sampled(variant, answer.detections, prepared, image.query)
            after = None if self._shadow is None else self._shadow.sample(sampled)
            answer = replace(answer, picture=picture, after_response=after)
            self._emit(answer)
            return answer

        return await self._run(work, clock)

    async def compare(self, image: ImageRequest, a: str, b: str) -> Comparison:
        detector, clock = self.variants.get(a), Stopwatch()
        self.variants.get(b)

        def work(waiter: Waiter) -> Comparison:
            # The variants of a model differ only in their engines: both get the same input.
            prepared, pixels = self._decode(replace(image, collect=False), detector, clock)
            shared = clock.read()
            answers = []
            for variant in (a, b):
                own = clock.resume(shared)
                answers.append(self._answer(variant, prepared, image.query, own, waiter))
                self._emit(answers[-1])
            return Comparison(answers[0], answers[1], _rendered(image, pixels, answers))

        both = await self._run(work, clock)
        compared = Compared("compare", a, b, both.a.detections, both.b.detections)
        self._workers.submit(lambda: self._emit(compared))
        return both

    async def infer(self, tensor: Floats, variant: str) -> RawAnswer:
        detector, clock = self.variants.get(variant), Stopwatch()

        def work(waiter: Waiter) -> RawAnswer:
            with self._workers.engine(waiter, clock):
                output = detector.infer_tensor(tensor)
            answer = RawAnswer(variant, output, clock.read())
            self._emit(answer)
            return answer

        return await self._run(work, clock)

    def close(self) -> None:
        if self._shadow is not None:
            self._shadow.close()
        self._workers.shutdown()
        self.variants.close()

    async def _run(self, work: Callable[[Waiter], T], clock: Stopwatch) -> T:
        with self.admission.slot() as slot:
            return await self._workers.run(work, clock, slot)

    def _decode(
        self, image: ImageRequest, detector: Detector, clock: Stopwatch
    ) -> tuple[Prepared, Pixels | None]:
        """The input of an engine, and the source pixels if they are to be rendered."""
        with clock.stage("decode"):
            photo = detector.decode(image.data, self._max_pixels)
        with clock.stage("preprocess"):
            prepared = detector.preprocess(photo)
        if self._collection is not None and image.collect:
            self._collect(self._collection, image.data, photo)
        pixels = None if image.render is None else full_size(photo, image.data, self._max_pixels)
        return prepared, pixels

    def _collect(self, collection: Collection, data: bytes, photo: Photo) -> None:
        index = collection.reserve()
        if index is not None:
            self._workers.submit(
                lambda: collection.keep(index, full_size(photo, data, self._max_pixels))
            )

    def _answer(
        self, variant: str, prepared: Prepared, query: Query, clock: Stopwatch, waiter: Waiter
    ) -> Answer:
        detector = self.variants.get(variant)
        with self._workers.engine(waiter, clock):
            raw = detector.infer(prepared)
        with clock.stage("postprocess"):
            detections = detector.postprocess(raw, prepared, query)
        source = prepared.letterbox
        return Answer(variant, source.source_width, source.source_height, detections, clock.read())

    def _open_shadow(self, sample: Sample) -> Shadow:
        detector = self.variants.get(sample.variant)

        def detect(prepared: Prepared, query: Query) -> Detections:
            with self._workers.engine(Waiter(), Stopwatch()):
                raw = detector.infer(prepared)
            return detector.postprocess(raw, prepared, query)

        admission = self.admission
        shadow = Shadow(sample, detect, self._emit, lambda: admission.is_idle, self._workers.submit)
        admission.on_idle = shadow.resume
        return shadow


def _rendered(
    image: ImageRequest, pixels: Pixels | None, answers: Sequence[Answer]
) -> bytes | None:
    return None if image.render is None or pixels is None else image.render(pixels, answers)
